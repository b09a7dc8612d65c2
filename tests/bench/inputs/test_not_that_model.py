"""A model that is not what its folder seems to be is refused, or what is different is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file

from bench.common.errors import UserError
from bench.inputs import checkpoints
from bench.inputs.loader import load
from bench.inputs.locations import check_model_name
from decoders.model.heads import MedusaHeads
from tests.helpers.checkpoints import write_base, write_medusa1
from tests.helpers.models import randomise, tiny_heads


def save(folder, tensors) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def change(path, **entries) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def add_adapter(folder) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def test_an_adapter_beside_a_model_is_refused(tmp_path):
    """transformers ignores it, or applies it where peft happens to be installed."""
    base = write_base(tmp_path / "base")
    heads = write_medusa1(tmp_path / "heads", "../base")
    add_adapter(base)
    for name in (str(base), heads):
        with pytest.raises(UserError, match=r"base' holds an adapter .* merge it"):
            load(name, device="cpu")
    (base / "adapter_config.json").unlink()
    add_adapter(tmp_path / "heads")
    for check in (lambda: load(heads, device="cpu"), lambda: check_model_name(heads)):
        with pytest.raises(UserError, match="heads' holds an adapter"):
            check()
    (tmp_path / "alone").mkdir()
    add_adapter(tmp_path / "alone")
    with pytest.raises(UserError, match="holds an adapter"):
        check_model_name(str(tmp_path / "alone"))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["1.0.linear.bias", "3.1.weight"])
def test_heads_that_are_not_finite_are_refused(tmp_path, name, value):
    """Of a training that diverged. They scored all the same."""
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    tensors = {name: each.clone() for name, each in tiny_heads().published().items()}
    tensors[name].view(-1)[-1] = value
    torch.save(tensors, tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(UserError, match=f"'{name}' holds NaN or infinite"):
        load(folder, device="cpu")


def test_what_a_checkpoint_asks_of_generate_is_told(tmp_path):
    base = write_base(tmp_path)
    assert load(str(base), device="cpu").warnings == ()
    asked = {"repetition_penalty": 1.1, "do_sample": True, "temperature": 0.7, "max_time": 5.0}
    change(base / "generation_config.json", **asked, eos_token_id=[2, 7])
    loaded = load(str(base), device="cpu")
    (warning,) = loaded.warnings
    assert all(f"{name}={value}" in warning for name, value in asked.items())
    assert "token_id" not in warning and loaded.eos == {2, 7}
    assert loaded.generation_config.repetition_penalty == 1.1


def test_a_context_that_ends_earlier_is_told(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    base = write_base(tmp_path, rope_parameters=rope)
    loaded = load(str(base), device="cpu")
    assert loaded.warnings == () and loaded.model.context == 160
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 12.0, 16.0]}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 64, "rope_theta": 10000.0}
    change(base / "config.json", rope_parameters=rope | factors)
    loaded = load(str(base), device="cpu")
    assert loaded.model.context == 64
    assert "longer than 64 tokens" in loaded.warnings[0]


def test_a_name_that_transformers_does_not_know_is_told(tmp_path):
    """Its KeyError is the name alone."""
    base = write_base(tmp_path)
    change(base / "config.json", rope_parameters={"rope_type": "warp", "rope_theta": 10000.0})
    with pytest.raises(
        UserError, match=r"transformers .* stops at 'warp'; either config.json lacks"
    ):
        load(str(base), device="cpu")


def test_weights_of_one_source_alone_are_read(tmp_path):
    """Where a folder has the merged checkpoint twice, the heads come from the model's own file."""
    base = write_base(tmp_path)
    weights = load_file(base / "model.safetensors")
    right, wrong = tiny_heads(seed=1), tiny_heads(seed=2)

    def merged(heads: MedusaHeads) -> dict:
        named = heads.published().items()
        return weights | {f"medusa_head.{name}": each.clone() for name, each in named}

    save(base, merged(right))
    torch.save(merged(wrong), base / "pytorch_model.bin")
    loaded = load(str(base), device="cpu")
    torch.testing.assert_close(loaded.model.heads.out_weight, right.out_weight)


def test_a_tensor_of_another_shape_is_named(tmp_path):
    """transformers says "look at the above report", which is not shown."""
    base = write_base(tmp_path)
    weights = load_file(base / "model.safetensors")
    save(base, weights | {"lm_head.weight": torch.zeros(102, 32)})
    says = r"'lm_head.weight' .* is \[102, 32\], but by its config.json it is \[101, 32\]"
    with pytest.raises(UserError, match=says):
        load(str(base), device="cpu")


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "module.", "base_model.model."])
def test_the_names_of_a_training_wrapper_are_told(tmp_path, wrapper):
    base = write_base(tmp_path)
    weights = load_file(base / "model.safetensors")
    save(base, {wrapper + name: each for name, each in weights.items()})
    with pytest.raises(UserError, match=f"lack .*'{wrapper}.* is a training wrapper's"):
        load(str(base), device="cpu")


@pytest.mark.parametrize(
    "config",
    [
        {"medusa_num_heads": 4},
        {"model_type": "medusa", "architectures": ["MedusaModel"], "num_heads": 4},
    ],
)
def test_heads_that_name_no_base_are_told_so(tmp_path, config):
    folder = write_medusa1(tmp_path / "heads", "../base")
    (tmp_path / "heads" / "config.json").write_text(json.dumps(config))
    for check in (lambda: load(folder, device="cpu"), lambda: check_model_name(folder)):
        with pytest.raises(UserError, match='names no base model; add the entry "base_model_name'):
            check()


def test_a_base_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    """The heads are here, and the base model is out of reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = write_medusa1(tmp_path / "heads", "acme/tiny-base")
    with pytest.raises(UserError, match=r"'acme/tiny-base', the base model of '.*heads', cannot"):
        load(folder, device="cpu")
    base = write_base(tmp_path / "base")
    (base / "tokenizer.json").write_text("{")
    write_medusa1(tmp_path / "heads", "../base")
    with pytest.raises(UserError, match=r"base', the base model of '.*heads'"):
        load(folder, device="cpu")
    shutil.rmtree(base)


def test_a_pickle_of_parameters(tmp_path):
    """Written with named_parameters() in place of state_dict()."""
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    heads = tiny_heads()
    named = {name: torch.nn.Parameter(each) for name, each in heads.published().items()}
    torch.save(named, tmp_path / "heads" / "medusa_lm_head.pt")
    loaded = load(folder, device="cpu")
    torch.testing.assert_close(loaded.model.heads.out_weight, heads.out_weight)


@pytest.mark.parametrize("layers", [1, 3])
def test_residual_blocks_alone_end_in_the_models_projection(tmp_path, layers):
    """Medusa's version 2. Published heads of that version may have projections all the same."""
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base", "safetensors")
    change(tmp_path / "heads" / "config.json", version="2", medusa_num_layers=layers)
    assert not load(folder, device="cpu").model.heads.shares_projection
    heads = randomise(MedusaHeads(4, 32, 101, layers), 1)
    blocks = {name: each for name, each in heads.published().items() if "linear" in name}
    save_file(blocks, tmp_path / "heads" / "medusa_lm_head.safetensors")
    model = load(folder, device="cpu").model
    assert model.heads.shares_projection and len(model.heads.block_weight) == layers


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    """A clone without git lfs has such files. A pickle of heads was said to hold code."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    base = write_base(tmp_path / "base")
    heads = write_medusa1(tmp_path / "heads", "../base")
    for name, file in (
        (heads, tmp_path / "heads" / "medusa_lm_head.pt"),
        (heads, base / "tokenizer.json"),
        (str(base), base / "model.safetensors"),
    ):
        content = file.read_bytes()
        file.write_text(pointer)
        with pytest.raises(UserError, match=rf"{file.name} is a pointer .* git lfs pull"):
            load(name, device="cpu")
        file.write_bytes(content)


def test_a_damaged_generation_config_is_refused(tmp_path):
    """transformers leaves it aside without a word, and with it tokens that end an answer."""
    base = write_base(tmp_path / "base")
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 5')
    with pytest.raises(UserError, match=r"generation_config\.json is damaged"):
        load(str(base), device="cpu")


def test_a_folder_without_a_tokenizer_is_told(tmp_path):
    base = write_base(tmp_path / "base")
    for path in base.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="has no tokenizer: expected"):
        load(str(base), device="cpu")


@pytest.mark.parametrize(
    ("base", "says"),
    [
        (".", r"names '.*heads' as its base model, which holds heads itself and names '.'"),
        ("../other", r"other' as its base model, which holds heads itself and names '../base'"),
        ("~/base", "base model of .* '~/base', is not a folder"),
        ("C:\\models\\base", r"'C:\\\\models\\\\base', is not a folder"),
        ("models/of/mine", "'models/of/mine', is not a folder"),
    ],
)
def test_a_base_model_that_is_none_is_told(tmp_path, base, says):
    write_base(tmp_path / "base")
    write_medusa1(tmp_path / "other", "../base")
    heads = write_medusa1(tmp_path / "heads", base)
    with pytest.raises(UserError, match=says):
        load(heads, device="cpu")


def test_two_files_of_heads_that_differ_are_refused(tmp_path):
    """The first was used, without a word. The same heads in fewer bits are no others."""
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    half = {name: each.half() for name, each in tiny_heads().published().items()}
    save_file(half, tmp_path / "heads" / "medusa_lm_head.safetensors")
    assert load(folder, device="cpu").model.num_heads == 4
    half["2.0.linear.bias"] += 1
    save_file(half, tmp_path / "heads" / "medusa_lm_head.safetensors")
    says = r"head\.safetensors and .*head\.pt hold different tensors, such as '2\.0\.linear\.bias'"
    with pytest.raises(UserError, match=says):
        load(folder, device="cpu")


def test_a_gated_model_is_told_from_one_that_is_not_there(monkeypatch):
    """As transformers says it. The first look leaves gated models aside."""

    def cached_file(*where, _raise_exceptions_for_gated_repo=True, **how):
        if _raise_exceptions_for_gated_repo:
            raise OSError("gated") from GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(checkpoints, "cached_file", cached_file)
    with pytest.raises(UserError, match="'org/gated' is a gated model: accept its licence"):
        load("org/gated", device="cpu")


def test_a_gguf_file_beside_a_config_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tiny.gguf").touch()
    with pytest.raises(UserError, match=r"has no weights: .*; to use its GGUF file, name that:"):
        check_model_name(str(tmp_path))


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_weights_that_a_folder_of_heads_holds_and_that_are_not_used_are_told(tmp_path, kind):
    """As of a merged checkpoint whose config.json still names a base model."""
    base = write_base(tmp_path / "base")
    folder = Path(write_medusa1(tmp_path / "heads", str(base), kind))

    def told() -> list[str]:
        return [each for each in load(str(folder), device="cpu").warnings if "of its own" in each]

    assert told() == []
    shutil.copy(Path(base) / "model.safetensors", folder)
    (said,) = told()
    assert "(model.safetensors)" in said and f"those of {str(base)!r} are used" in said
