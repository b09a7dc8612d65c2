"""Which of the engine's Triton kernels a model uses: those that compute here what PyTorch computes.

A kernel may fail to compile on a GPU, or with a release of Triton, that nobody has tried. So each
is compared with its function in plain PyTorch, in the model's own shapes, before it is used.
"""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from subprocess import SubprocessError

import torch
from torch import Tensor
from transformers import PretrainedConfig

from decoders.engine.changes import Changes
from decoders.engine.fused import TOLERANCE
from decoders.engine.tree_attention import (
    ATTENTION_PURPOSE,
    TreeAttention,
    plain_tree_attention,
    use_tree_attention,
)
from decoders.model.attention import AttentionMasks, tree_mask
from decoders.model.cache import KVCache, write_rows
from decoders.tree import Tree

WRITE_PURPOSE = "keys and values written by one kernel"
PURPOSES = (ATTENTION_PURPOSE, WRITE_PURPOSE)  # Of the changes that the kernels make.
WIDTH = 256  # Slots of a trial.
COMMITTED = 150  # Those that are in use before the tree of a trial.
ROWS = (1, 64)  # Of the trees that are tried.
Write = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]


def use_own_kernels(
    config: PretrainedConfig, masks: AttentionMasks, cache: KVCache, changes: Changes
) -> None:
    """Use the kernels in the static forwards of a model on CUDA, where Triton is installed.

    config: of the text model. Warns of a kernel that fails here; the model then does without it.
    """
    if find_spec("triton") is None:
        return
    from decoders.engine.kernels.cache_rows import write_rows as write_by_kernel
    from decoders.engine.kernels.tree_attention import tree_attention

    heads = config.num_attention_heads
    if _works(ATTENTION_PURPOSE, lambda: check_tree_attention(tree_attention, heads, cache)):
        use_tree_attention(config, masks, changes, tree_attention)
    if _works(WRITE_PURPOSE, lambda: check_write_rows(write_by_kernel, cache)):
        changes.replace(cache, "write_rows", write_by_kernel, WRITE_PURPOSE)


def _works(purpose: str, check: Callable[[], None]) -> bool:
    from triton.errors import TritonError

    try:
        check()
    # A SubprocessError is of the C compiler, with which Triton builds what launches a kernel.
    except (
        TritonError, RuntimeError, AssertionError, ValueError, OSError, SubprocessError
    ) as error:  # fmt: skip
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        warnings.warn(f"{purpose}: this kernel is not used here: {what}", stacklevel=2)
        return False
    return True


@torch.inference_mode()
def check_tree_attention(attend: TreeAttention, heads: int, cache: KVCache) -> None:
    """Compare attention with plain PyTorch's. AssertionError where it differs.

    heads: of queries. cache: tells the other shapes.
    """
    for keys, values in _kinds_of_layers(cache):
        if keys.shape != values.shape or heads % keys.shape[1]:
            continue  # Such layers never use it.
        committed = torch.tensor([COMMITTED], device=keys.device)
        stored = _random(keys, WIDTH)[0], _random(values, WIDTH)[0]
        for rows in ROWS:
            tree = Tree.from_parent([0, *range(rows - 1)]).to(keys.device)  # A chain.
            mask = tree_mask(tree, keys.dtype, torch.finfo(keys.dtype).min, committed, WIDTH)
            query = _random(keys.expand(heads // keys.shape[1], -1, -1, -1), rows).flatten(0, 1)
            given = (query, *stored, mask, committed, rows, query.shape[-1] ** -0.5)
            _compare(attend(*given), plain_tree_attention(*given))


@torch.inference_mode()
def check_write_rows(write: Write, cache: KVCache) -> None:
    """Compare a cache's rows with those that PyTorch writes. AssertionError where they differ."""
    for keys, values in _kinds_of_layers(cache):
        slots = torch.arange(COMMITTED, COMMITTED + max(ROWS), device=keys.device)
        new = _random(keys, len(slots)), _random(values, len(slots))
        expected = _random(keys, WIDTH), _random(values, WIDTH)
        found = [each.clone() for each in expected]
        write(*found, slots, *new)
        write_rows(*expected, slots, *new)
        for each, other in zip(found, expected, strict=True):
            _compare(each, other)


def _kinds_of_layers(cache: KVCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [1, heads, 0, size] of layers that differ in shape."""
    return list(
        {(keys.shape, values.shape): (keys, values) for keys, values in cache.shapes}.values()
    )


def _random(like: Tensor, slots: int) -> Tensor:
    """Normally distributed entries. like: [batch, heads, any, size], of which `slots` are made."""
    generator = torch.Generator(like.device).manual_seed(0)
    batch, heads, _, size = like.shape
    return like.new_empty(batch, heads, slots, size).normal_(generator=generator)


def _compare(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=TOLERANCE)
