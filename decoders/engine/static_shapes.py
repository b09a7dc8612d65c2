"""Static shapes: steps over equally many nodes run the same operations on the same memory.

A static forward reads a whole bucket of the cache, however little of it is committed. All drafts of
one shape are copied to the same place. So the step can be captured as a CUDA graph.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from decoders.tree import Draft, Tree


def bucket(slots: int) -> int:
    """The width of the static shape that `slots` fit in: 256, 384, 512, 768, 1024 and so on.

    >>> bucket(7), bucket(256), bucket(257), bucket(600)
    (256, 256, 384, 768)
    """
    power = max(256, 1 << (slots - 1).bit_length())
    return power - power // 4 if 256 < slots <= power - power // 4 else power


def buckets(slots: int) -> Iterator[int]:
    """All widths up to the one that `slots` fit in.

    >>> list(buckets(600))
    [256, 384, 512, 768]
    """
    width = 0
    while width < slots:
        width = bucket(width + 1)
        yield width


class DraftPlaces:
    """Fixed memory for drafts: one place for each number of nodes and depth."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._places: dict[tuple[int, int], tuple[Tensor, Draft]] = {}

    def place(self, draft: Draft) -> Draft:
        """The same draft in its fixed memory, valid until the next draft of its shape is placed."""
        tree = draft.tree
        shape = nodes, depth = len(tree), tree.max_depth
        if shape not in self._places:
            table = torch.zeros(3 + depth, nodes, dtype=torch.long, device=self.device)
            placed_tree = Tree(depth=table[1], parent=table[2], ancestors=table[3:].mT)
            log_prob = torch.zeros(nodes, device=self.device)
            self._places[shape] = table, Draft(placed_tree, token=table[0], log_prob=log_prob)
        table, placed = self._places[shape]
        if draft.token is not placed.token:  # It may lie there already.
            columns = (tree.depth.unsqueeze(0), tree.parent.unsqueeze(0), tree.ancestors.mT)
            torch.cat((draft.token.unsqueeze(0), *columns), out=table)
            if draft.log_prob is not None:
                placed.log_prob.copy_(draft.log_prob)
        return placed if draft.log_prob is not None else replace(placed, log_prob=None)
