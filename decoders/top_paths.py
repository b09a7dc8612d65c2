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
    last_cell: Tensor  # [members] the cell of the member's own token
    ancestors: Tensor  # [members, depth + 1] as in Tree, over members; member 0 is the root

    @classmethod
    def of(cls, nodes: int, topk: int, depth: int, device: torch.device) -> "TopPaths":
        """For trees of `nodes` nodes (root included) from `depth` heads with `topk` guesses each."""
        paths = universe(nodes, topk, depth)
        cells = torch.zeros(len(paths), depth, dtype=torch.long)
        for member, path in enumerate(paths):
            cells[member, : len(path)] = torch.tensor([1 + d * topk + rank for d, rank in enumerate(path)])
        ancestors = Tree.from_paths(paths[1:]).ancestors
        if ancestors.shape[1] <= depth:  # fewer nodes than levels: nothing reaches the deepest heads
            ancestors = torch.nn.functional.pad(ancestors, (0, depth + 1 - ancestors.shape[1]))
        return cls(nodes, cells.to(device), cells.max(1).values.to(device), ancestors.to(device))

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
        chosen = order[: self.nodes]
        place = torch.empty_like(order).scatter_(0, order, self._ranks)  # member -> its place in the order
        ancestors = self.ancestors.index_select(0, chosen)
        ancestors = place.index_select(0, ancestors.flatten()).view(ancestors.shape)
        return Tree(ancestors), self.last_cell.index_select(0, chosen), score[: self.nodes]

    @cached_property
    def _ranks(self) -> Tensor:
        return torch.arange(len(self.last_cell), device=self.last_cell.device)


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
