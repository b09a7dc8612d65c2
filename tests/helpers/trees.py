"""The most likely paths, by brute force and as `TopPaths` chooses them."""

import itertools

import torch

from decoders.dynamic.top_paths import TopPaths
from decoders.tree import Tree

CPU = torch.device("cpu")


def brute_force(log_prob: torch.Tensor, nodes: int) -> list[tuple[int, ...]]:
    """The best `nodes - 1` paths of the Cartesian product, best first.

    Ties go to the shallower path, then to the lower ranks.
    """
    depth, topk = log_prob.shape
    paths = [path for d in range(1, depth + 1) for path in itertools.product(range(topk), repeat=d)]
    # Rank `topk` stands beyond a path's end. Its log probability is 0.
    padded = torch.cat((log_prob, torch.zeros(depth, 1)), dim=1)
    ranks = torch.tensor([path + (topk,) * (depth - len(path)) for path in paths])
    # Added up in the precision of the code under test.
    scores = padded[torch.arange(depth), ranks].sum(-1).tolist()
    order = sorted(range(len(paths)), key=lambda i: (-scores[i], len(paths[i]), paths[i]))
    return [paths[i] for i in order[: nodes - 1]]


def chosen_paths(log_prob: torch.Tensor, nodes: int) -> list[tuple[int, ...]]:
    """The paths that `TopPaths` chooses, after a look at everything in its draft."""
    depth, topk = log_prob.shape
    guesses = torch.arange(depth * topk).view(depth, topk)  # Each token tells its place.
    root = torch.tensor([depth * topk + 9])
    draft = TopPaths(nodes, topk, depth, CPU).choose(root, guesses, log_prob)
    tree, score, parent = draft.tree, draft.log_prob, draft.tree.parent.tolist()
    # A parent stands before its children, and no score exceeds its parent's or the one before.
    assert all(above < node for node, above in enumerate(parent[1:], start=1))
    assert score[0] == 0
    assert (score[1:] <= score[tree.parent[1:]]).all() and (score[1:] <= score[:-1]).all()
    assert draft.token[:1].equal(root) and tree.max_depth == depth
    paths: list[tuple[int, ...]] = [()]
    for above, token in zip(parent[1:], draft.token.tolist()[1:], strict=True):
        head, rank = divmod(token, topk)
        assert head == len(paths[above])
        paths.append((*paths[above], rank))
    guessed = log_prob.tolist()
    sums = [sum(guessed[level][rank] for level, rank in enumerate(path)) for path in paths]
    torch.testing.assert_close(score, torch.tensor(sums))
    plain = Tree.from_parent(parent)
    assert tree.depth.equal(plain.depth)
    assert tree.ancestors[:, : plain.max_depth].equal(plain.ancestors)
    return paths[1:]
