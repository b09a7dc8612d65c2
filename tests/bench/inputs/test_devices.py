"""Devices of a machine that has some. A stand-in takes the place of its GPU."""

import pytest
import torch

from bench.common.errors import UserError
from bench.inputs.devices import check_device


def test_a_number_beyond_the_last_gpu_is_told(monkeypatch):
    """The model was loaded first, and torch's own error told as the model's."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert [check_device(each) for each in ("cuda", "cuda:1", "auto", "cpu:7", "balanced")] == [
        "cuda", "cuda:1", "cuda", "cpu", "balanced",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"'cuda:9' was asked for, but .* 2 of .* last is cuda:1"):
        check_device("cuda:9")
