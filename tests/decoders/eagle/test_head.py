"""EAGLE's published layout: what is in a file and does not fit is named."""

import pytest
import torch

from decoders.eagle.head import EagleHead
from decoders.model.model import Model
from tests.helpers.drafters import eagle_tensors, hydra_tensors
from tests.helpers.models import tiny_llama

ATTENTION = "layers.0.self_attn"


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_llama())


@pytest.mark.parametrize("without", [(), ("fc.bias",), ("embed_tokens.weight", "fc.bias")])
def test_a_published_file_is_read_whole_and_written_alike(model, without):
    tensors = {name: each for name, each in eagle_tensors().items() if name not in without}
    written = EagleHead.from_published(tensors, model).published()
    tensors.pop("embed_tokens.weight", None)  # A copy of the base model's own.
    assert written.keys() == tensors.keys()
    assert all(written[name].equal(tensor) for name, tensor in tensors.items())


def test_the_mlp_and_the_biases_may_differ_from_the_base_models(model):
    """As in heads for Qwen2, whose attention has biases but at its output."""
    tensors = eagle_tensors()
    for name, shape in (("gate", (20, 32)), ("up", (20, 32)), ("down", (32, 20))):
        tensors[f"layers.0.mlp.{name}_proj.weight"] = torch.ones(shape)
    for name, size in (("q", 32), ("k", 16), ("v", 16)):
        tensors[f"{ATTENTION}.{name}_proj.bias"] = torch.ones(size)
    head = EagleHead.from_published(tensors, model)
    assert head.layer.layers[0].self_attn.o_proj.bias is None
    tensors[f"{ATTENTION}.o_proj.bias"] = torch.ones(32)
    head = EagleHead.from_published(tensors, model)
    assert head.layer.layers[0].self_attn.o_proj.bias.equal(torch.ones(32))


@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("fc.weight", None, "is missing"),
        (f"{ATTENTION}.k_proj.weight", None, "is missing"),
        ("layers.0.input_layernorm.weight", (32,), "does not belong to heads of EAGLE"),
        ("layers.1.mlp.up_proj.weight", (48, 32), "does not belong"),
        ("fc.weight", (32, 96), r"is \[32, 96\]; this base model needs \[32, 64\]"),
        (f"{ATTENTION}.k_proj.weight", (32, 32), r"is \[32, 32\]; .* needs \[16, 32\]"),
        ("embed_tokens.weight", (101, 16), r"is \[101, 16\]; this base model needs \[101, 32\]"),
    ],
)
def test_what_does_not_fit_is_named(model, name, shape, says):
    tensors = eagle_tensors()
    tensors.pop(name, None)
    if shape is not None:
        tensors[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=f"tensor '{name}' {says}"):
        EagleHead.from_published(tensors, model)


def test_eagle_3_is_refused_by_name(model):
    for name in ("midlayer.self_attn.q_proj.weight", "d2t", "layers.0.hidden_norm.weight"):
        with pytest.raises(ValueError, match=f"'{name}' is of EAGLE-3"):
            EagleHead.from_published({name: torch.ones(3), **eagle_tensors()}, model)
    with pytest.raises(ValueError, match=r"tensor 'fc\.weight' is missing"):
        EagleHead.from_published(hydra_tensors(), model)
