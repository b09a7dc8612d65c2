"""The most likely paths through independent guesses, exactly, without their Cartesian product.

A path takes one guess of each head down to its depth, and its probability is the product of theirs. With every head's
guesses sorted, rank tuple (r1..rd) is preceded by each tuple that is componentwise no larger and by all their prefixes:
sum_k prod_{i<=k} (r_i + 1) of them, itself included. A tuple where that exceeds the number wanted is never chosen, so a
small fixed universe of tuples holds every possible answer. For 63 paths of depth 4 it has 1,338 members; the Cartesian
product of 32 guesses has 1,082,400.
"""

from functools import lru_cache

import torch
from torch import Tensor

from decoders.tree import Draft, Tree


class TopPaths:
    """Chooses the `nodes - 1` most likely paths; scores live in log space. Members are ordered by depth, then by rank.

    Everything that a chosen member looks up (its depth, its token, where its ancestors stand in the chosen tree) lies in
    one table, so that a tree is one look-up, whatever its size.
    """

    def __init__(self, nodes: int, topk: int, depth: int, device: torch.device) -> None:
        """For trees of `nodes` nodes (root included) from `depth` heads with `topk` guesses each."""
        paths = universe(nodes, topk, depth)
        members = len(paths)
        shape = Tree.from_paths(paths[1:])
        self.nodes = min(nodes, members)
        # Where each level's guess stands in (nothing, head 1's guesses, head 2's, ...); 0 beyond the member's depth.
        cells = torch.zeros(members, depth, dtype=torch.long)
        for member, path in enumerate(paths):
            cells[member, : len(path)] = torch.tensor(
                [1 + d * topk + rank for d, rank in enumerate(path)]
            )
        # The table: every member's place in the order, the depths, then the root's token and every guess's.
        depths, tokens = members, members + depth + 1
        table = torch.cat(
            (torch.zeros(members), torch.arange(depth + 1), torch.zeros(1 + depth * topk))
        ).long()
        itself = (
            torch.arange(members).unsqueeze(1).expand(-1, depth - shape.max_depth)
        )  # heads that no path reaches
        facts = [
            tokens + cells.amax(1),
            depths + shape.depth,
            shape.parent,
            *shape.lines.T,
            *itself.T,
        ]
        self._cells = cells.to(device)
        self._facts = torch.stack(facts).to(device)  # [3 + depth, members]
        self._member = torch.arange(members, device=device)
        self._table = table.to(device)
        self._place = self._table[:members]
        self._root = self._table[tokens : tokens + 1]
        self._guesses = self._table[tokens + 1 :]
        self._log_prob = torch.zeros(1 + depth * topk, device=device)

    def choose(self, root: Tensor, guesses: Tensor, log_prob: Tensor) -> Draft:
        """The tree of the most likely paths, most likely first.

        root: [1]; guesses: [depth, topk] tokens; log_prob: [depth, topk] of each, every row descending and <= 0.
        Ties go to the shallower path, then to the lower ranks, so a path never stands without its parent.
        """
        self._root.copy_(root)
        self._guesses.copy_(guesses.flatten())
        self._log_prob[1:].copy_(log_prob.flatten())
        # Rounding is monotone and no term exceeds 0, so a child's sum never exceeds its parent's.
        score = self._log_prob.take(self._cells).sum(-1)  # [members]
        # The bits of a float >= 0, read as an integer, sort as the float does. With the member's number behind them no two
        # keys are equal, and ties fall as in a stable sort, at a fraction of its time.
        keys = torch.add(self._member, score.abs().view(torch.int32), alpha=1 << 29)
        order = keys.topk(self.nodes, largest=False).indices  # [nodes]
        self._place.scatter_(0, order, self._member[: self.nodes])
        fixed, lines = self._table.take(self._facts.index_select(1, order)).split(
            (3, len(self._facts) - 3)
        )
        token, depth, parent = fixed.unbind()
        return Draft(Tree(depth, parent, lines.mT), token, score.index_select(0, order))


@lru_cache(maxsize=64)
def universe(nodes: int, topk: int, depth: int) -> list[tuple[int, ...]]:
    """Every rank tuple that can be among the `nodes - 1` most likely, the empty one (root) first.

    >>> universe(4, 32, 2)
    [(), (0,), (1,), (2,), (0, 0), (0, 1)]
    """
    members: list[tuple[int, ...]] = [()]

    def extend(path: tuple[int, ...], product: int, preceding: int) -> None:
        for rank in range(topk):
            grown = product * (rank + 1)
            if preceding + grown > nodes - 1:
                return
            members.append((*path, rank))
            if len(path) + 1 < depth:
                extend(members[-1], grown, preceding + grown)

    extend((), 1, 0)
    return sorted(members, key=lambda path: (len(path), path))
