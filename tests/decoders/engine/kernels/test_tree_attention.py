"""The kernel computes what plain PyTorch computes. Without CUDA, Triton's interpreter runs it."""

import pytest
import torch

from decoders.engine.tree_attention import plain_tree_attention
from decoders.model.attention import tree_mask
from decoders.tree import Tree
from tests.helpers.kernels import DEVICE, NEEDS_TRITON, TOLERANCE

pytest.importorskip("triton", reason=NEEDS_TRITON)
from decoders.engine.kernels import tree_attention as kernel

# The interpreter does not compute in bfloat16.
DTYPES = ("float32", "float16", "bfloat16") if DEVICE == "cuda" else ("float32", "float16")
TREES = {
    "root": [0],
    "small": [0, 0, 0, 1, 1, 3],
    "chain": [0, *range(63)],
    "star": [0] * 64,
    "wide": [0, *(node // 3 for node in range(127))],
}


def given(tree="small", committed=150, shared=2, group=1, size=64, dtype="float32", first=0):
    """The arguments of a tree's attention, random, with NaN in all slots that are unused.

    shared: heads of keys. group: query heads for each. first: the rows before it are left out.
    """
    generator = torch.Generator().manual_seed(committed)
    dtype = getattr(torch, dtype)
    tree = Tree.from_parent(TREES[tree])
    nodes, width = len(tree), 384
    query = torch.randn(shared * group, nodes - first, size, generator=generator)
    keys, values = torch.randn(2, shared, width, size, generator=generator)
    mask = tree_mask(tree, dtype, torch.finfo(dtype).min, torch.tensor([committed]), width)[first:]
    keys[:, committed + nodes :] = values[:, committed + nodes :] = torch.nan
    tensors = [each.to(DEVICE, dtype) for each in (query, keys, values, mask)]
    return *tensors, torch.tensor([committed], device=DEVICE), nodes, size**-0.5


def check(arguments):
    tolerance = TOLERANCE[arguments[0].dtype]
    found = kernel.tree_attention(*arguments)
    assert found.isfinite().all()
    torch.testing.assert_close(
        found, plain_tree_attention(*arguments), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tree", TREES)
def test_trees_of_all_forms(tree, dtype):
    check(given(tree, dtype=dtype))


@pytest.mark.parametrize("committed", [0, 1, 26, 31, 32, 33, 63, 64, 65, 250, 378])
def test_lengths_around_the_borders_of_the_blocks(committed):
    check(given(committed=committed))


@pytest.mark.parametrize(("group", "size"), [(1, 128), (3, 80), (4, 96), (8, 64)])
def test_grouped_queries_and_sizes_of_heads(group, size):
    check(given(group=group, size=size))


@pytest.mark.parametrize("programs", [1, 4, 8, 1000])
def test_any_number_of_parts_gives_the_same(monkeypatch, programs):
    """One part, some of which a short text leaves empty, and as many as there are blocks."""
    monkeypatch.setattr(kernel, "PROGRAMS", programs)
    check(given("chain", committed=3))
    check(given("chain", committed=300))


def test_rows_of_the_last_nodes_alone():
    """A draft that grows level by level reads its first nodes once."""
    check(given("wide", first=100))


def test_a_row_that_sees_nothing_in_whole_parts():
    """The slots of a star's other nodes fill parts of which the first node sees nothing."""
    arguments = given("star", committed=0)
    check(arguments)
    mask = arguments[3]
    mask[mask < 0] = -torch.inf
    check(arguments)


def test_tensors_as_a_forward_lays_them_out():
    """Queries as a projection writes them, and keys in a buffer with more slots."""
    query, keys, values, *others = given("wide", group=2)
    query = query.transpose(0, 1).contiguous().transpose(0, 1)
    longer = torch.full((2, *keys.shape[:1], 512, keys.shape[2]), torch.nan, device=DEVICE)
    longer[:, :, : keys.shape[1]] = torch.stack((keys, values))
    keys, values = longer[:, :, : keys.shape[1]]
    check((query, keys, values, *others))
