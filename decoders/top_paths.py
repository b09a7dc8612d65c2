"""The most likely paths through independent guesses, exactly, without their Cartesian product.

A path takes one guess of each head down to its depth, and its probability is the product of theirs. With every head's
guesses sorted, rank tuple (r1..rd) is preceded by each tuple that is componentwise no larger and by all their prefixes:
sum_k prod_{i<=k} (r_i + 1) of them, itself included. A tuple where that exceeds the number wanted is never chosen, so a
small fixed universe of tuples holds every possible answer. For 63 paths of depth 4 it has 1,338 members; the Cartesian
product of 32 guesses has 1,082,400.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from decoders.tree import Tree


@dataclass(frozen=True, eq=False)
class TopPaths:
    """Chooses the `nodes - 1` most likely paths; scores live in log space. Members are ordered by depth, then by rank."""

    nodes: int
    cells: Tensor  # [members, depth] index into (nothing, head 1's guesses, head 2's, ...); 0 beyond the member's depth
    facts: Tensor  # [members, 2 + depth + 1] depth, cell of the member's own token, ancestors as in Tree but over members

    @classmethod
    def of(cls, nodes: int, topk: int, depth: int, device: torch.device) -> "TopPaths":
        """For trees of `nodes` nodes (root included) from `depth` heads with `topk` guesses each."""
        paths = universe(nodes, topk, depth)
        cells = torch.zeros(len(paths), depth, dtype=torch.long)
        for member, path in enumerate(paths):
            cells[member, : len(path)] = torch.tensor([1 + d * topk + rank for d, rank in enumerate(path)])
        shape = Tree.from_paths(paths[1:])
        missing = depth - shape.max_depth  # too few nodes for the deepest heads
        ancestors = torch.nn.functional.pad(shape.ancestors, (0, missing))
        facts = torch.cat((shape.depth[:, None], cells.amax(1, keepdim=True), ancestors), dim=1)
        return cls(nodes, cells.to(device), facts.to(device))

    def choose(self, log_prob: Tensor) -> tuple[Tree, Tensor, Tensor]:
        """The tree of the most likely paths.

        log_prob: [depth, topk] of each head's guesses, each row descending and <= 0.
        Returns the tree, cell [nodes] (0: root, else 1 + head * topk + rank) and path log probability [nodes].
        Ties go to the shallower path, then to the lower ranks, so a path never stands without its parent.
        """
        flat = torch.cat((log_prob.new_zeros(1), log_prob.flatten()))
        # Rounding is monotone and no term exceeds 0, so a child's sum never exceeds its parent's.
        score = flat.index_select(0, self.cells.flatten()).view(self.cells.shape).sum(-1)  # [members]
        score, order = score.sort(descending=True, stable=True)
        self._place.scatter_(0, order, self._ranks)  # member -> its place in the order
        facts = self.facts.index_select(0, order[: self.nodes])
        ancestors = self._place.index_select(0, facts[:, 2:].flatten()).view(-1, self.cells.shape[1] + 1)
        return Tree(ancestors, facts[:, 0]), facts[:, 1], score[: self.nodes]

    @cached_property
    def _ranks(self) -> Tensor:
        return torch.arange(len(self.cells), device=self.cells.device)

    @cached_property
    def _place(self) -> Tensor:
        return torch.empty_like(self._ranks)


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
