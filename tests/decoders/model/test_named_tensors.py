"""Tensors of a file under published names."""

import pytest
import torch

from decoders.model.named_tensors import check_tensors


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_not_finite_is_named(value, dtype):
    expected = {name: torch.zeros(3, device="meta") for name in ("a", "b")}
    check_tensors(expected, {name: torch.ones(3, dtype=dtype) for name in expected}, "heads")
    wrong = {"a": torch.ones(3), "b": torch.tensor([1.0, value, 1.0], dtype=dtype)}
    with pytest.raises(ValueError, match="tensor 'b' holds NaN or infinite numbers"):
        check_tensors(expected, wrong, "heads")


def test_floats_of_8_bits_can_be_looked_at():
    """torch's own function does not know them."""
    small = torch.tensor([1.0, torch.nan]).to(torch.float8_e4m3fn)
    check_tensors({"a": torch.zeros(1)}, {"a": small[:1]}, "heads")
    with pytest.raises(ValueError, match="tensor 'a' holds NaN"):
        check_tensors({"a": torch.zeros(2)}, {"a": small}, "heads")
