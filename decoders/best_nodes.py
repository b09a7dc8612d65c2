"""The best candidates of all levels together, as one tree."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from decoders.tree import Draft, Tree

# Score of a candidate that is missing, or whose logits are NaN. It is finite, so that the score of
# a path still descends below it.
NO_SCORE = -1e3


def best_children(score: Tensor, log_prob: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `width` best children of some nodes, best first.

    score: [nodes] of the nodes. log_prob: [nodes, candidates] of their children. Returns three
    tensors [width]: scores, indices of the parents, and indices among all candidates, flattened.

    >>> log_prob = torch.tensor([[-1.0, -3.0], [-1.0, -1.5]])
    >>> [each.tolist() for each in best_children(torch.tensor([0.0, -1.0]), log_prob, 3)]
    [[-1.0, -2.0, -2.5], [0, 1, 1], [0, 2, 3]]
    """
    score, best = (score.unsqueeze(1) + log_prob).flatten().topk(width)
    return score, best.div(log_prob.shape[1], rounding_mode="floor"), best


class BestNodes:
    """Makes a tree of the highest scores. Candidates stand level by level, the root first."""

    def __init__(self, nodes: int, widths: Sequence[int], device: torch.device) -> None:
        """For trees of `nodes` nodes, root included, fewer where there are fewer candidates.

        widths: number of candidates at each depth; the first is the root's, 1.
        """
        # Number of candidates -> the depth of the deepest one.
        self._deepest = {count: depth for depth, count in enumerate(accumulate(widths))}
        levels = torch.arange(len(widths))
        self._depth = levels.repeat_interleave(torch.tensor(widths)).to(device)
        self._level = levels[1:].to(device)
        self._order = torch.arange(nodes, device=device)

    def tree(self, token: Tensor, score: Tensor, parent: Tensor) -> Draft:
        """The tree of the best candidates, best first. Their scores are its log probabilities.

        token, score, parent: [candidates] of all levels, or of the first ones. `parent` holds
        indices of candidates. No score exceeds the parent's. Ties go to the earlier candidate, so
        that no node stands before its parent.

        >>> best = BestNodes(4, [1, 2, 2], torch.device("cpu"))
        >>> score = torch.tensor([0.0, -1.0, -3.0, -2.0, -4.0])
        >>> draft = best.tree(torch.tensor([9, 5, 6, 7, 8]), score, torch.tensor([0, 0, 0, 1, 1]))
        >>> draft.token.tolist(), draft.tree.parent.tolist()
        ([9, 5, 7, 6], [0, 0, 1, 0])
        """
        deepest = self._deepest[len(token)]
        order = self._order[: len(token)]
        ranked, candidates = score.sort(descending=True, stable=True)
        chosen = candidates[: len(order)]
        # [candidates] the node that each chosen candidate becomes.
        node = torch.zeros_like(parent).scatter_(0, chosen, order)
        above = node.take(parent.index_select(0, chosen))  # [nodes]
        generations = [order]  # Each node, its parent, its parent's parent, ...
        for _ in range(deepest - 1):
            generations.append(above.index_select(0, generations[-1]))
        depth = self._depth.index_select(0, chosen)
        # The ancestor at level d is depth - d generations up.
        up = (depth.unsqueeze(1) - self._level[:deepest]).clamp(min=0)
        ancestors = torch.stack(generations, 1).gather(1, up)
        tree = Tree(depth, above, ancestors)
        return Draft(tree, token.index_select(0, chosen), ranked[: len(order)])
