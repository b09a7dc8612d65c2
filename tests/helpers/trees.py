"""The most likely paths, by brute force and as `TopPaths` chooses them."""

import itertools

import torch

from decoders.dynamic.top_paths import TopPaths
from decoders.tree import Tree

CPU = torch.device("cpu")


def brute_force(log_prob: torch.Tensor, nodes: int) -> list[tuple[int, ...]]:
    """All paths of the Cartesian product, best first; ties to the shallower, then to the lower ranks."""
    depth, topk = log_prob.shape
    paths = [path for d in range(1, depth + 1) for path in itertools.product(range(topk), repeat=d)]
    padded = torch.cat(
        (log_prob, torch.zeros(depth, 1)), dim=1
    )  # rank `topk`, beyond a path's end, has log probability 0
    ranks = torch.tensor([path + (topk,) * (depth - len(path)) for path in paths])
    scores = (
        padded[torch.arange(depth), ranks].sum(-1).tolist()
    )  # in the precision of the code under test
    order = sorted(range(len(paths)), key=lambda i: (-scores[i], len(paths[i]), paths[i]))
    return [paths[i] for i in order[: nodes - 1]]


def chosen_paths(log_prob: torch.Tensor, nodes: int) -> list[tuple[int, ...]]:
    depth, topk = log_prob.shape
    guesses = torch.arange(depth * topk).view(depth, topk)  # as tokens their own places
    root = torch.tensor([depth * topk + 9])
    draft = TopPaths(nodes, topk, depth, CPU).choose(root, guesses, log_prob)
    tree, score, parent = draft.tree, draft.log_prob, draft.tree.parent.tolist()
    assert all(above < node for node, above in enumerate(parent[1:], start=1)), (
        "a parent stands before its children"
    )
    assert (
        score[0] == 0
        and (score[1:] <= score[tree.parent[1:]]).all()
        and (score[1:] <= score[:-1]).all()
    )
    assert draft.token[:1].equal(root) and tree.max_depth == depth
    paths: list[tuple[int, ...]] = [()]
    for above, token in zip(parent[1:], draft.token.tolist()[1:], strict=True):
        head, rank = divmod(token, topk)
        assert head == len(paths[above])
        paths.append((*paths[above], rank))
    guessed = log_prob.tolist()
    torch.testing.assert_close(
        score,
        torch.tensor([sum(guessed[d][rank] for d, rank in enumerate(path)) for path in paths]),
    )
    plain = Tree.from_parent(parent)
    assert tree.depth.equal(plain.depth) and tree.lines[:, : plain.max_depth].equal(plain.lines)
    return paths[1:]
