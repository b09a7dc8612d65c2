"""Hydra's published layouts: what is in a file and does not fit is named."""

import pytest
import torch

from decoders.hydra.heads import PREFIX, HydraHeads
from decoders.model.model import Model
from tests.helpers.drafters import eagle_tensors, hydra_tensors
from tests.helpers.models import tiny_heads, tiny_llama


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_llama())


@pytest.mark.parametrize("plus_plus", [False, True])
def test_a_published_file_is_read_whole_and_written_alike(model, plus_plus):
    tensors = hydra_tensors(plus_plus=plus_plus)
    heads = HydraHeads.from_published(tensors, model)
    written = heads.published()
    for name, tensor in tensors.items():
        if "embed" in name.removeprefix(PREFIX):  # A copy of the base model's own.
            assert name not in written
        else:
            assert written.pop(name).equal(tensor)
    assert not written and len(heads) == 3


def test_what_older_files_also_hold_is_left_out(model):
    tensors = hydra_tensors(plus_plus=True)
    tensors[f"{PREFIX}layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    del tensors["input_embed_fn.weight"]
    assert HydraHeads.from_published(tensors, model).prefix is not None


@pytest.mark.parametrize("plus_plus", [False, True])
@pytest.mark.parametrize(
    ("name", "shape", "says"),
    [
        ("hydra_mlp.1.{first}.res_connection.bias", None, "is missing; 3 Hydra heads of 2 blocks"),
        ("hydra_lm_head.2{out}.weight", None, "is missing"),
        ("hydra_mlp.0.{first}.other", (3,), "does not belong to 3 Hydra heads"),
        ("hydra_lm_head.3{out}.weight", (101, 32), "does not belong"),
        ("something", (3,), "'something' does not belong"),
        ("hydra_mlp.2.{first}.linear.weight", (32, 96), r"is \[32, 96\]; .* needs \[32, 128\]"),
        ("hydra_lm_head.0{out}.bias", (7,), r"is \[7\]; this base model needs \[101\]"),
        ("input_embed_fn.weight", (50, 32), r"is \[50, 32\]; this base model needs \[101, 32\]"),
    ],
)
def test_what_does_not_fit_is_named(model, plus_plus, name, shape, says):
    name = name.format(first=1 if plus_plus else 0, out=".1" if plus_plus else "")
    tensors = hydra_tensors(plus_plus=plus_plus)
    tensors.pop(name, None)
    if shape is not None:
        tensors[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=f"tensor '.*' {says}|tensor {says}") as raised:
        HydraHeads.from_published(tensors, model)
    assert repr(name) in str(raised.value)


def test_other_kinds_of_heads_are_told(model):
    for others in (eagle_tensors(), tiny_heads().published(), {}):
        with pytest.raises(ValueError, match="no Hydra head in it"):
            HydraHeads.from_published(others, model)
    blind = {n: t for n, t in hydra_tensors().items() if "res_connection" not in n}
    with pytest.raises(ValueError, match="do not see each other's guesses"):
        HydraHeads.from_published(blind, model)
    whole = {n: t.long() if n == "hydra_lm_head.0.bias" else t for n, t in hydra_tensors().items()}
    with pytest.raises(ValueError, match=r"'hydra_lm_head.0.bias' is torch.int64; expected float"):
        HydraHeads.from_published(whole, model)
