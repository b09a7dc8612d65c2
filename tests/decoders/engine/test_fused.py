"""What --compile compiles, and that it can be switched off."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from decoders.engine.engine import Engine
from decoders.engine.fused import ROTATION
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.steps import steps_of, tokens_of


@pytest.fixture
def compiled(monkeypatch) -> list:
    """Calls of what was compiled. Nothing really is: that needs a compiler, and time."""
    calls = []

    def compile_nothing(plain, **options):
        def call(*args, **kwargs):
            calls.append(plain)
            return plain(*args, **kwargs)

        return call

    # Put back afterwards.
    monkeypatch.setattr(modeling_llama, ROTATION, getattr(modeling_llama, ROTATION))
    monkeypatch.setattr(torch, "compile", compile_nothing)
    return calls


def test_norms_and_rotation_are_compiled_and_can_be_switched_off(compiled):
    plain = Engine(tiny_llama(), tiny_heads())
    fused = Engine(tiny_llama(), tiny_heads(), fused=True)
    listed = fused.changes.listed()
    # Two layers with two norms each, and the last norm.
    assert (listed["compiled normalisation"], listed["compiled rotation"]) == (5, 1)
    compiled.clear()
    tokens = torch.arange(9)
    with fused.as_loaded():
        fused.lm(input_ids=tokens.unsqueeze(0))
    assert not compiled
    fused.lm(input_ids=tokens.unsqueeze(0))
    assert len(compiled) == 2 * 2 + 1 + 2  # The norms, and a rotation a layer.
    expected = tokens_of(steps_of(plain, "dynamic:nodes=16"))
    assert tokens_of(steps_of(fused, "dynamic:nodes=16")) == expected
