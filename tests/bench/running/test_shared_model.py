"""A change of the shared model is noticed, whichever copy of the weights a step reads."""

import pytest
import torch

from bench.running.shared_model import SharedModel
from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from tests.helpers.models import tiny_heads, tiny_llama


@pytest.mark.parametrize("name", ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"])
def test_a_changed_weight_is_noticed(name):
    """The layers are so large that a CPU's engine packs copies of their weights."""
    model = Engine(tiny_llama(hidden_size=256, intermediate_size=512))
    shared = SharedModel(model)
    assert not shared.change()
    with torch.no_grad():
        model.lm.model.layers[0].get_submodule(name).weight.mul_(0.5)
    assert "logits after a few fixed tokens have moved" in shared.change()


def test_changed_heads_and_a_changed_context_are_noticed():
    heads = tiny_heads()
    heads.restrict_to(torch.arange(50))  # Others have a logit of -inf.
    model = Engine(tiny_llama(), heads)
    shared = SharedModel(model)
    assert not shared.change()
    model.context = 100
    assert shared.change() == "the model's context is 100, and was 160"
    model.context = 160
    with torch.no_grad():
        model.heads.out_weight.zero_()
    assert "the heads' logits after a few fixed tokens have moved" in shared.change()


def test_heads_of_zeros_have_not_moved():
    model = Engine(tiny_llama(), MedusaHeads(2, 32, 101))
    assert not SharedModel(model).change()
