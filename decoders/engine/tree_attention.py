"""Attention of a tree's few rows over the cache, in place of transformers' `sdpa`.

transformers calls the attention function whose name is in a model's configuration. The one that is
registered here gives a call to the engine's own attention where it knows that the mask is a tree's:
committed positions that every row sees, and the tree's nodes after them. All other calls go to
`sdpa`, which also computes what a tree alone does not need: prompts, sliding windows, biases.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from decoders.engine.changes import Changes
from decoders.model.attention import FULL, AttentionMasks
from decoders.tree import Tree

NAME = "medusa_bench_tree"  # Of the attention function, as transformers knows it.
STOCK = "sdpa"  # The function that it can take the place of.
# Attribute of a configuration that names the function.
CONFIGURED = "_attn_implementation_internal"
ATTENTION_PURPOSE = "tree attention"

MOST_ROWS = 128  # Of a tree.
LARGEST_HEAD = 256  # Entries.
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# (query, keys, values, mask, committed, nodes, scale), as in `plain_tree_attention`.
TreeAttention = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, float], Tensor]


def plain_tree_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    committed: Tensor,
    nodes: int,
    scale: float,
) -> Tensor:
    """Attention of a tree's rows. Returns [rows, heads, size].

    query: [heads, rows, size], a row for each of the tree's last nodes.
    keys, values: [shared heads, width, size]. Consecutive query heads share a head of keys. The
        positions from committed + nodes on are unused, and may hold anything.
    mask: [rows, width], 0 where a row sees a position, and negative where not. Every row sees the
        positions up to `committed`, which is the root's; the mask is not read there.
    committed: [1] int64, the number of committed positions, on the device.
    nodes: of the whole tree, whose keys and values follow the committed ones.
    scale: factor of the scores.
    """
    heads, rows, size = query.shape
    column = torch.arange(keys.shape[1], device=keys.device)
    unused = column >= committed + nodes
    is_masked = (mask < 0) & (column > committed) | unused  # [rows, width]
    # [shared heads, queries that share one, rows, size]
    grouped = query.float().unflatten(0, (keys.shape[0], -1))
    keys = keys.float().masked_fill(unused.unsqueeze(1), 0).unsqueeze(1)
    values = values.float().masked_fill(unused.unsqueeze(1), 0).unsqueeze(1)
    scores = (grouped @ keys.mT * scale).masked_fill(is_masked, float("-inf"))
    attended = scores.softmax(-1) @ values
    return attended.reshape(heads, rows, size).transpose(0, 1).to(query.dtype)


@dataclass(frozen=True, eq=False)
class _Step:
    """What the mask of a static forward leaves open."""

    attend: TreeAttention
    committed: Tensor  # [1] int64, on the device.
    nodes: int  # Of the whole tree.


def use_tree_attention(
    config: PretrainedConfig, masks: AttentionMasks, changes: Changes, attend: TreeAttention
) -> None:
    """Let the static forwards of a model use `attend`, where it uses `sdpa` today.

    config: of the text model. masks: those that the model's forwards are given.
    """
    if vars(config).get(CONFIGURED) != STOCK:
        return
    AttentionInterface.register(NAME, _tree_or_stock)
    AttentionMaskInterface.register(NAME, sdpa_mask)  # The masks of prompts are as before.
    plain_masks = masks.of

    def marked(
        tree: Tree, committed: int | Tensor, width: int, first: int = 0
    ) -> Tensor | dict[str, Tensor]:
        made = plain_masks(tree, committed, width, first)
        if isinstance(committed, Tensor):
            in_window = masks.window is None or width <= masks.window  # No mask slides yet.
            by_layer_type = made if isinstance(made, dict) else {None: made}
            for layer_type, mask in by_layer_type.items():
                if in_window or layer_type == FULL:
                    mask.tree_step = _Step(attend, committed, len(tree))
        return made

    changes.replace(masks, "of", marked, ATTENTION_PURPOSE)
    changes.replace(config, CONFIGURED, NAME, ATTENTION_PURPOSE)


def _tree_or_stock(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: object,
) -> tuple[Tensor, Tensor | None]:
    """An attention function as transformers calls it.

    query: [1, heads, rows, size]. Returns [1, rows, heads, size], and no weights.
    """
    step = getattr(attention_mask, "tree_step", None)  # On a mask of `marked`, and no other.
    if step is None or not _can_attend(query, key, value, attention_mask, options):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    scale = options.get("scaling")
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    mask = attention_mask[0, 0]
    attended = step.attend(query[0], key[0], value[0], mask, step.committed, step.nodes, scale)
    return attended.unsqueeze(0), None


def _can_attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, options: dict[str, object]
) -> bool:
    """Whether a call asks for nothing but softmax(query @ keys * scale + mask) @ values."""
    is_plain = not options.get("dropout") and all(
        options.get(name) is None for name in ("softcap", "s_aux", "position_bias")
    )
    tensors = (query, key, value)
    return (
        is_plain
        and query.shape[0] == 1
        and query.shape[2] <= MOST_ROWS
        and query.shape[1] % key.shape[1] == 0
        and mask.shape == (1, 1, query.shape[2], key.shape[2])
        and query.dtype in DTYPES
        and all(each.dtype == query.dtype and each.stride(-1) == 1 for each in tensors)
        and query.shape[-1] == key.shape[-1] == value.shape[-1] <= LARGEST_HEAD
    )
