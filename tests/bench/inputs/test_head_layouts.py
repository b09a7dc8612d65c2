"""Heads under the names of other programs, with and without projections of their own."""

import json

import pytest
import torch
from safetensors.torch import save_file

from bench.common.errors import UserError
from bench.inputs.head_layouts import to_published, to_vllm, without_prefix
from bench.inputs.loader import load
from decoders.model.heads import MedusaHeads
from tests.helpers.checkpoints import write_base
from tests.helpers.models import randomise, tiny_heads

HIDDEN = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))


def published(layers=1):
    heads = randomise(MedusaHeads(4, 32, 101, layers), 1)
    return {name: tensor.clone() for name, tensor in heads.published().items()}


def folder_of(tmp_path, tensors, file="medusa_lm_head.safetensors", **config):
    write_base(tmp_path / "base")
    folder = tmp_path / "heads"
    folder.mkdir()
    save_file(tensors, folder / file)
    (folder / "config.json").write_text(
        json.dumps({"base_model_name_or_path": "../base", **config})
    )
    return str(folder)


def expected_logits(tensors):
    return MedusaHeads.from_published(tensors, 32, 101)(HIDDEN)


PREFIXES = ("", "medusa_head.", "module.", "_orig_mod.", "module.heads.", "model.medusa_head.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_are_taken_off(tmp_path, prefix):
    tensors = published()
    folder = folder_of(tmp_path, {prefix + name: each for name, each in tensors.items()})
    heads = load(folder, device="cpu").model.heads
    torch.testing.assert_close(heads(HIDDEN), expected_logits(tensors))


@pytest.mark.parametrize("prefix", ["", "medusa_heads."])
@pytest.mark.parametrize("has_bias", [True, False])
def test_vllms_names(tmp_path, prefix, has_bias):
    """Without `medusa_fc_bias` its blocks have no bias."""
    tensors = published(layers=2)
    if not has_bias:
        tensors |= {name: 0 * each for name, each in tensors.items() if name.endswith("bias")}
    theirs = {prefix + name: each for name, each in to_vllm(tensors, 2).items()}
    kept = {name: each for name, each in theirs.items() if has_bias or "bias" not in name}
    folder = folder_of(tmp_path, kept, file="model.safetensors")
    heads = load(folder, device="cpu").model.heads
    torch.testing.assert_close(heads(HIDDEN), expected_logits(tensors))


@pytest.mark.parametrize("wrapper", ["_orig_mod", "module", "_fsdp_wrapped_module"])
def test_wrappers_within_names_are_left_out(tmp_path, wrapper):
    """A compiled or distributed part of the heads writes its wrapper into the middle of names."""
    tensors = published()
    renamed = {name.replace(".", f".{wrapper}.", 1): each for name, each in tensors.items()}
    heads = load(folder_of(tmp_path, renamed), device="cpu").model.heads
    torch.testing.assert_close(heads(HIDDEN), expected_logits(tensors))


@pytest.mark.parametrize("prefix", ["", "medusa_heads."])
def test_tensorrts_names(tmp_path, prefix):
    tensors = published(layers=2)

    def theirs(name: str) -> str:
        head, block, *rest = name.split(".")
        own = f"medusa_layers.{block}.{'.'.join(rest)}" if len(rest) > 1 else "lm_head.weight"
        return f"{prefix}{head}.{own}"

    folder = folder_of(tmp_path, {theirs(name): each for name, each in tensors.items()})
    heads = load(folder, device="cpu").model.heads
    torch.testing.assert_close(heads(HIDDEN), expected_logits(tensors))


@pytest.mark.parametrize("with_copy", [True, False])
def test_a_shared_projection_is_the_base_models(tmp_path, with_copy):
    """vLLM's files hold a copy of it. It is not looked at."""
    blocks = {name: each for name, each in to_vllm(published(), 1).items() if "blocks" in name}
    extra = {"lm_head.weight": torch.zeros(101, 32)} if with_copy else {}
    model = load(folder_of(tmp_path, blocks | extra, original_lm_head=True), device="cpu").model
    assert model.heads.shares_projection
    weight = model.lm.get_output_embeddings().weight
    own = published() | {f"{head}.1.weight": weight for head in range(4)}
    torch.testing.assert_close(model.heads(HIDDEN), expected_logits(own), rtol=1e-5, atol=1e-5)


def test_projections_onto_a_part_of_the_vocabulary(tmp_path):
    """A token that is not mapped is never guessed, also where all mapped ones have low logits."""
    tokens = torch.tensor([90, 3, 7, 55])
    tensors = published()
    full = expected_logits(tensors)
    small = {
        name: each[tokens] if name.endswith("1.weight") else each for name, each in tensors.items()
    }
    folder = folder_of(tmp_path, small | {"token_map": tokens})
    model = load(folder, device="cpu").model
    logits = model.heads(HIDDEN)
    torch.testing.assert_close(logits[..., tokens], full[..., tokens])
    others = torch.ones(101, dtype=torch.bool).index_fill(0, tokens, False)
    assert logits[..., others].eq(-torch.inf).all()
    narrow = model.heads.narrowed(torch.tensor([7, 8]))
    assert narrow(HIDDEN)[..., 1].eq(-torch.inf).all()
    torch.testing.assert_close(narrow(HIDDEN)[..., 0], full[..., 7])
    model.heads.renarrow(narrow, slice(1, None), torch.tensor([3]))
    torch.testing.assert_close(narrow(HIDDEN)[..., 1], full[..., 3])


SHARED = {name: each for name, each in published().items() if "linear" in name}


OWN = {"original_lm_head": True}


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        (SHARED, {}, r"tensor '0\.1\.weight', a projection, is missing"),
        (published(), OWN, "'0.1.weight' is a projection of its own"),
        (
            published() | {"lm_head.weight": torch.zeros(101, 32)},
            {},
            "config.json has no 'original_lm",
        ),
        (
            published() | {"0.0.gate.weight": torch.zeros(2)},
            {},
            "'0.0.gate.weight' is not a tensor",
        ),
        (published() | {"medusa_head.0.1.weight": torch.zeros(2)}, {}, "stands twice"),
        (published() | {"token_map": torch.tensor([1, 2])}, {}, "'token_map' names 2 tokens"),
        (published() | {"token_map": torch.tensor([1, 101])}, {}, "expected token ids below 101"),
        (SHARED | {"token_map": torch.tensor([1])}, OWN, "but no projection onto its tokens"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, tensors, config, says):
    with pytest.raises(UserError, match=f"the heads of .* do not fit its base model: .*{says}"):
        load(folder_of(tmp_path, tensors, **config), device="cpu")


def test_names_go_to_vllm_and_back():
    tensors = {name: each.clone() for name, each in tiny_heads().published().items()}
    back, tokens = to_published(to_vllm(tensors, 1), 101, is_shared=False)
    assert tokens is None and back.keys() == tensors.keys()
    assert all(back[name].equal(tensors[name]) for name in tensors)
    assert without_prefix("0.0.linear.bias") == "0.0.linear.bias"
