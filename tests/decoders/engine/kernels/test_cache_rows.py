"""The kernel writes what PyTorch writes, and nothing else."""

import pytest
import torch

from decoders.model.cache import write_rows
from tests.helpers.kernels import DEVICE, NEEDS_TRITON

pytest.importorskip("triton", reason=NEEDS_TRITON)
from decoders.engine.kernels import cache_rows as kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sizes", [(64, 64), (96, 96), (24, 16)], ids=str)
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_rows_in_their_slots(rows, sizes, dtype):
    """Keys and values of one size or two, laid out as a projection writes them."""
    generator = torch.Generator().manual_seed(rows)
    slots = torch.randperm(256, generator=generator)[:rows].to(DEVICE)
    new, found, expected = [], [], []
    for size in sizes:
        made = torch.randn(1, rows, 3, size, generator=generator)
        new.append(made.to(DEVICE, dtype).transpose(1, 2))
        stored = torch.randn(1, 3, 256, size, generator=generator).to(DEVICE, dtype)
        found.append(stored)
        expected.append(stored.clone())
    kernel.write_rows(*found, slots, *new)
    write_rows(*expected, slots, *new)
    assert all(each.equal(other) for each, other in zip(found, expected, strict=True))


def test_rows_that_are_not_dense():
    new = torch.arange(64.0, device=DEVICE).view(1, 1, 16, 4).mT  # [1, 1, 4 rows, 16]
    found = torch.zeros(2, 1, 1, 32, 16, device=DEVICE)
    kernel.write_rows(*found, torch.arange(5, 9, device=DEVICE), new, new + 1)
    assert found[0, 0, 0, 5:9].equal(new[0, 0]) and found[1, 0, 0, 5:9].equal(new[0, 0] + 1)
