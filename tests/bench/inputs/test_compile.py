"""--compile: what is said where nothing can be compiled."""

import pytest
import torch
from transformers.models.llama import modeling_llama

from bench.common.errors import UserError
from bench.inputs.loader import load
from decoders.engine.fused import ROTATION
from tests.helpers.checkpoints import write_merged


def test_where_nothing_can_be_compiled_that_is_said(monkeypatch, tmp_path):
    def no_compiler(plain, **options):
        def call(*args, **kwargs):
            raise torch._dynamo.exc.InternalTorchDynamoError("no working C++ compiler")

        return call

    # Put back afterwards.
    monkeypatch.setattr(modeling_llama, ROTATION, getattr(modeling_llama, ROTATION))
    monkeypatch.setattr(torch, "compile", no_compiler)
    says = r"--compile was given, but .* no working C\+\+ compiler; leave the flag out"
    with pytest.raises(UserError, match=says):
        load(str(write_merged(tmp_path)), device="cpu", compile=True)
