"""A change of the shared model is noticed, whichever copy of the weights a step reads."""

import pytest
import torch

from bench.running.shared_model import SharedModel
from decoders.engine.engine import Engine
from tests.helpers.models import tiny_llama


@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"])
def test_a_changed_weight_is_noticed(name):
    """The layers are so large that a CPU's engine packs copies of their weights."""
    model = Engine(tiny_llama(hidden_size=256, intermediate_size=512))
    shared = SharedModel(model)
    assert not shared.change()
    with torch.no_grad():
        model.lm.model.layers[0].get_submodule(name).weight.mul_(0.5)
    assert "logits after a few fixed tokens have moved" in shared.change()
