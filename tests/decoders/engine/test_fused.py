"""What --compile compiles, and that it can be switched off."""

from functools import partial

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from transformers.models.llama import modeling_llama

from decoders.engine.changes import Changes
from decoders.engine.engine import Engine
from decoders.engine.fused import ROTATION, fuse
from tests.helpers.models import FAMILIES, randomise, tiny_heads, tiny_llama
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


def test_small_operations_are_compiled_and_can_be_switched_off(compiled):
    plain = Engine(tiny_llama(), tiny_heads())
    fused = Engine(tiny_llama(), tiny_heads(), fused=True)
    listed = fused.changes.listed()
    # Two layers with two norms and an MLP each, and the last norm.
    assert (listed["compiled normalisation"], listed["compiled rotation"]) == (5, 1)
    assert listed["compiled gate"] == 2
    compiled.clear()
    tokens = torch.arange(9)
    with fused.as_loaded():
        fused.lm(input_ids=tokens.unsqueeze(0))
    assert not compiled
    fused.lm(input_ids=tokens.unsqueeze(0))
    # The norms, and a rotation and a gate a layer.
    assert len(compiled) == 2 * 2 + 1 + 2 + 2
    expected = tokens_of(steps_of(plain, "dynamic:nodes=16"))
    assert tokens_of(steps_of(fused, "dynamic:nodes=16")) == expected


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3"])
def test_a_compiled_gate_computes_what_the_mlp_does(compiled, family):
    lm = randomise(FAMILIES[family]())
    rows = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(0))
    expected = lm.model.layers[0].mlp(rows)
    fused = Engine(lm, fused=True)
    assert fused.changes.listed()["compiled gate"] == 2
    torch.testing.assert_close(lm.model.layers[0].mlp(rows), expected)


def test_layers_share_what_is_compiled(monkeypatch):
    """torch compiles a function only so often. Further layers would run uncompiled."""
    monkeypatch.setattr(modeling_llama, ROTATION, getattr(modeling_llama, ROTATION))
    counter, real = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", partial(real, backend=counter))
    lm = tiny_llama(num_hidden_layers=torch._dynamo.config.recompile_limit + 2)
    fuse(lm, Changes())
    with torch.inference_mode():
        lm(input_ids=torch.arange(9).unsqueeze(0))
    assert counter.frame_count == 3  # A norm, the rotation, a gate.


class OtherMLP(torch.nn.Module):
    """An MLP with the usual names that computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = torch.nn.Linear(32, 48), torch.nn.Linear(32, 48)
        self.down_proj = torch.nn.Linear(48, 32)
        self.act_fn = torch.nn.SiLU()

    def forward(self, rows):
        return 2 * self.down_proj(self.act_fn(self.gate_proj(rows)) * self.up_proj(rows))


@pytest.mark.parametrize("how", ["computes more", "has a forward of its own", "is quantised"])
def test_an_mlp_that_is_not_the_usual_one_is_left_alone(compiled, how):
    lm = tiny_llama()
    mlp = lm.model.layers[0].mlp
    if how == "computes more":
        lm.model.layers[0].mlp = OtherMLP()
    elif how == "has a forward of its own":
        mlp.forward = mlp.forward
    else:
        mlp.up_proj.__class__ = type("Quantised", (torch.nn.Linear,), {})
    assert Engine(lm, fused=True).changes.listed()["compiled gate"] == 1
