"""Attention along a tree: the masks.

Masks are additive and in the model's dtype, because both `sdpa` and `eager` attention read such
masks. (A bool mask would be silently wrong under `eager`.)
"""

from functools import lru_cache

import torch
from torch import Tensor
from transformers import PretrainedConfig

from decoders.tree import Tree

FULL, SLIDING = "full_attention", "sliding_attention"


def tree_mask(
    tree: Tree,
    dtype: torch.dtype,
    masked: float,
    committed: int | Tensor = 0,
    width: int | None = None,
) -> Tensor:
    """Additive mask [nodes, width]: row n is 0 where node n may attend, and `masked` elsewhere.

    A node may attend to the committed positions, to the root, to its ancestors and to itself.

    committed: number of committed positions, an int or [1]. width: None means committed + nodes.
    The further columns of a wider mask are hidden.
    """
    nodes, device = len(tree), tree.depth.device
    width = committed + nodes if width is None else width
    if isinstance(committed, int):
        slots = max(4096, 1 << width.bit_length())  # Few sizes, so that few edges are cached.
        row = _edge(slots, masked, dtype, device)[slots - committed - 1 :][:width]
    else:
        column = torch.arange(width, device=device)
        row = torch.zeros(width, dtype=dtype, device=device)
        row.masked_fill_(column > committed, masked)
    return row.expand(nodes, -1).scatter(1, tree.ancestors + committed, 0.0)


@lru_cache(maxsize=32)
def _edge(slots: int, masked: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[2 * slots]: `slots` times 0, then `slots` times `masked`.

    Every row of a mask is a slice of it, wherever the row turns from 0 to `masked`. So it costs no
    tensor operation.
    """
    return torch.tensor((0.0, masked), dtype=dtype, device=device).repeat_interleave(slots)


class AttentionMasks:
    """Makes the masks of one model: full ones, and sliding ones where it has sliding windows."""

    def __init__(self, config: PretrainedConfig, dtype: torch.dtype) -> None:
        """`config`: of the text model. ValueError where a kind of layer cannot attend a tree."""
        self.dtype = dtype
        self._layer_types = set(getattr(config, "layer_types", None) or [])
        # Positions that a sliding layer sees. None: the model has no such layers.
        self.window: int | None = getattr(config, "sliding_window", None)
        if unknown := self._layer_types - {FULL, SLIDING}:
            raise ValueError(f"it has layers of type {min(unknown)!r}")

    def of(
        self, tree: Tree, committed: int | Tensor, width: int, first: int = 0
    ) -> Tensor | dict[str, Tensor]:
        """The mask [1, 1, nodes, width], or one by type of layer where the family takes them so.

        first: the rows of the nodes before this one are left out.
        """
        masked = torch.finfo(self.dtype).min
        full = tree_mask(tree, self.dtype, masked, committed, width)
        masks = {FULL: full[None, None, first:]}
        if self.window is not None:
            if width > self.window:  # In a shorter text the window holds everything.
                column = torch.arange(width, device=full.device)
                slots = column[: len(tree)] + committed
                position = tree.depth + committed
                positions = column.index_copy(0, slots, position)  # [width]
                distance = position.unsqueeze(1) - positions  # [nodes, width]
                full = full.masked_fill(distance >= self.window, masked)
            masks[SLIDING] = full[None, None, first:]
        if self._layer_types:
            return {kind: masks[kind] for kind in self._layer_types}
        return full[None, None, first:]
