"""--compile: what is compiled, that it can be switched off, and what is said where it cannot be."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from bench.common.errors import UserError
from bench.inputs.loader import load
from decoders.engine.fused import ROTATION
from decoders.model.model import Model
from tests.helpers.checkpoints import write_merged
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.steps import steps_of, tokens_of


@pytest.fixture
def compiled(monkeypatch):
    """Calls of what was compiled; the compiling itself is left out, as it takes a compiler and its time."""
    calls = []
    monkeypatch.setattr(
        modeling_llama, ROTATION, getattr(modeling_llama, ROTATION)
    )  # put back afterwards
    monkeypatch.setattr(
        torch,
        "compile",
        lambda plain, **_: lambda *args, **kwargs: calls.append(plain) or plain(*args, **kwargs),
    )
    return calls


def test_norms_and_rotation_are_compiled_and_can_be_switched_off(compiled):
    plain, fused = Model(tiny_llama(), tiny_heads()), Model(tiny_llama(), tiny_heads(), fused=True)
    compiled.clear()
    tokens = torch.arange(9)
    with fused.as_loaded():
        fused.lm(input_ids=tokens.unsqueeze(0))
    assert not compiled
    fused.lm(input_ids=tokens.unsqueeze(0))
    assert (
        len(compiled) == 2 * 2 + 1 + 2
    )  # two layers with two norms each, the last norm, a rotation a layer
    assert tokens_of(steps_of(fused, "dynamic:nodes=16")) == tokens_of(
        steps_of(plain, "dynamic:nodes=16")
    )


def test_where_nothing_can_be_compiled_that_is_said(monkeypatch, tmp_path):
    def no_compiler(plain, **_):
        def call(*args, **kwargs):
            raise torch._dynamo.exc.InternalTorchDynamoError("no working C++ compiler")

        return call

    monkeypatch.setattr(modeling_llama, ROTATION, getattr(modeling_llama, ROTATION))
    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(
        UserError,
        match=r"--compile was given, but .* no working C\+\+ compiler; leave the flag out",
    ):
        load(str(write_merged(tmp_path)), device="cpu", compile=True)
