"""Checkpoints of every layout, and what is said of those that are broken or not there."""

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BloomConfig, BloomForCausalLM, GenerationConfig

from bench.common.errors import UserError
from bench.inputs import identity, loader
from bench.inputs.checkpoints import short_name
from bench.inputs.devices import check_device
from bench.inputs.loader import _engine, load
from bench.inputs.locations import check_model_name
from bench.inputs.model_warnings import warnings_about
from tests.helpers.checkpoints import Bomb, write_base, write_medusa1, write_merged
from tests.helpers.models import tiny_heads, tiny_llama, tiny_tokenizer


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
def test_medusa_1(tmp_path, kind):
    write_base(tmp_path / "base")
    loaded = load(write_medusa1(tmp_path / "heads", "../base", kind), device="cpu")
    assert loaded.model.num_heads == 4
    torch.testing.assert_close(loaded.model.heads.out_weight, tiny_heads().out_weight)
    assert loaded.name == "heads" and loaded.eos == {2} and loaded.model.dtype == torch.float32


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
def test_medusa_2_whole_and_sharded(tmp_path, shard):
    write_merged(tmp_path / "merged", max_shard_size=shard)
    assert (tmp_path / "merged" / "model.safetensors.index.json").exists() == (shard == "20KB")
    loaded = load(str(tmp_path / "merged"), device="cpu")
    assert loaded.model.num_heads == 4
    torch.testing.assert_close(loaded.model.heads.out_weight, tiny_heads().out_weight)


def test_medusa_2_as_a_pickle(tmp_path):
    write_base(tmp_path)
    lm = load(str(tmp_path), device="cpu").model.lm
    published = tiny_heads().published()
    heads = {f"medusa_head.{name}": tensor.clone() for name, tensor in published.items()}
    torch.save(lm.state_dict() | heads, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    assert load(str(tmp_path), device="cpu").model.num_heads == 4


def test_texts_about_a_model_are_no_part_of_it(tmp_path):
    """A README that was edited made another model of it, so that a run could not go on."""
    folder = str(write_merged(tmp_path))
    first = load(folder, device="cpu")
    for name in ("README.md", ".DS_Store", "reliability.png"):
        (tmp_path / name).write_text("news")
    again = load(folder, device="cpu")
    assert (again.identity, again.contents) == (first.identity, first.contents)
    (tmp_path / "notes.json").write_text("{}")
    assert load(folder, device="cpu").identity != first.identity


def test_identity_is_of_the_heads_and_of_the_base(tmp_path):
    base = write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    first = load(folder, device="cpu").identity
    assert load(folder, device="cpu").identity == first
    write_medusa1(tmp_path / "heads", "../base", heads=3)
    second = load(folder, device="cpu").identity
    write_base(base, seed=5)
    assert len({first, second, load(folder, device="cpu").identity}) == 3


def test_contents_are_of_every_byte(tmp_path, monkeypatch):
    """The identity takes only the ends of a large file."""
    monkeypatch.setattr(identity, "SAMPLE_BYTES", 1000)
    write_base(tmp_path)
    first = load(str(tmp_path), device="cpu")
    file = tmp_path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    second = load(str(tmp_path), device="cpu")
    assert first.identity == second.identity and first.contents != second.contents


def test_a_loaded_model_does_not_depend_on_its_files(tmp_path):
    """Mapped weights would change with the file, and keep it in memory."""
    folder = write_base(tmp_path)
    lm = load(str(folder), device="cpu").model.lm
    before = {name: weight.clone() for name, weight in lm.state_dict().items()}
    file = folder / "model.safetensors"
    with file.open("r+b") as weights:
        weights.seek(-1000, 2)
        weights.write(b"\x77" * 1000)
    assert all(before[name].equal(weight) for name, weight in lm.state_dict().items())
    assert lm.get_input_embeddings().weight.requires_grad is False


def test_a_plain_model_has_no_heads(tmp_path):
    loaded = load(str(write_base(tmp_path)), device="cpu")
    assert loaded.model.num_heads == 0 and loaded.model.heads is None


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype(tmp_path, dtype):
    loaded = load(str(write_merged(tmp_path)), device="cpu", dtype=dtype)
    assert loaded.model.dtype == loaded.model.heads.out_weight.dtype == getattr(torch, dtype)


def damage(folder, what: str) -> None:
    if what == "no weights":
        (folder / "model.safetensors").unlink()
    elif what == "torn weights":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif what == "no config":
        (folder / "config.json").unlink()
    elif what == "config is not JSON":
        (folder / "config.json").write_text("{")
    elif what == "config is a list":
        (folder / "config.json").write_text("[]")
    elif what == "config of odd types":
        (folder / "config.json").write_text('{"model_type": "llama", "hidden_size": "x"}')
    elif what == "a base that is no name":
        (folder / "config.json").write_text('{"base_model_name_or_path": null}')
    elif what == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif what == "a shard is missing":
        next(folder.glob("model-00002*")).unlink()


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("no weights", "has no weights"),
        ("torn weights", "damaged"),
        ("no config", "expected 'demo', a folder"),
        ("config is not JSON", "damaged"),
        ("no tokenizer", "has no tokenizer"),
        ("config is a list", "holds a list"),
        ("config of odd types", "cannot be loaded"),
        ("a base that is no name", "names no base model"),
    ],
)
def test_a_broken_folder_says_what_is_broken(tmp_path, what, says):
    write_merged(tmp_path)
    damage(tmp_path, what)
    with pytest.raises(UserError, match=says):
        load(str(tmp_path), device="cpu")


def test_a_missing_shard_is_named(tmp_path):
    write_merged(tmp_path, max_shard_size="20KB")
    damage(tmp_path, "a shard is missing")
    with pytest.raises(UserError, match="model-00002"):
        load(str(tmp_path), device="cpu")


def test_a_file_of_heads_beside_a_whole_model(tmp_path):
    """Somebody put the trained heads into the folder of their model."""
    write_base(tmp_path)
    torch.save(tiny_heads().published(), tmp_path / "medusa_lm_head.pt")
    loaded = load(str(tmp_path), device="cpu")
    torch.testing.assert_close(loaded.model.heads.out_weight, tiny_heads().out_weight)
    write_merged(tmp_path)  # The same heads once more.
    loaded = load(str(tmp_path), device="cpu")
    torch.testing.assert_close(loaded.model.heads.out_weight, tiny_heads().out_weight)
    torch.save(tiny_heads(seed=2).published(), tmp_path / "medusa_lm_head.pt")
    with pytest.raises(UserError, match=r"those in medusa_lm_head.pt, and others .* '0.0.linear"):
        load(str(tmp_path), device="cpu")


def test_heads_of_a_folder_go_before_those_of_its_base(tmp_path):
    """Such as heads that were trained on a model that has some."""
    write_merged(tmp_path / "base")
    write_medusa1(tmp_path / "heads", str(tmp_path / "base"))
    torch.save(tiny_heads(seed=2).published(), tmp_path / "heads" / "medusa_lm_head.pt")
    loaded = load(str(tmp_path / "heads"), device="cpu")
    torch.testing.assert_close(loaded.model.heads.out_weight, tiny_heads(seed=2).out_weight)


def test_a_models_name_is_not_the_digest_behind_a_link(tmp_path):
    """The hub's cache: a snapshot holds links to files that are named by their digests."""
    cached = tmp_path / "models--org--tiny"
    (cached / "blobs").mkdir(parents=True)
    snapshot = write_base(cached / "snapshots" / ("0" * 40))
    for number, file in enumerate(sorted(snapshot.iterdir())):
        file.rename(cached / "blobs" / f"{number:064}")
        file.symlink_to(Path("..", "..", "blobs", f"{number:064}"))
    link = tmp_path / "mine"
    link.symlink_to(Path("models--org--tiny", "snapshots", "0" * 40))
    for folder in (snapshot, link):
        assert load(str(folder), device="cpu").name == "tiny"
    assert short_name(str(snapshot / "config.json")) == "config.json"
    assert short_name(str(link)) == "tiny"
    assert short_name("org/other") == "other"


def test_heads_beside_a_whole_model_are_found_on_a_hub(tmp_path, monkeypatch):
    """They were looked for in folders alone."""
    snapshot = write_base(tmp_path / "models--acme--whole" / "snapshots" / ("0" * 40))
    save_file(tiny_heads().published(), snapshot / "medusa_lm_head.safetensors")
    refs = tmp_path / "models--acme--whole" / "refs"
    refs.mkdir()
    (refs / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load("acme/whole", device="cpu")
    assert loaded.model.num_heads == 4 and loaded.name == "whole"
    assert loaded.identity == loaded.contents == "0" * 40


def test_missing_model_tensors_are_named(tmp_path):
    """transformers fills them with random numbers, and goes on."""
    lost = "model.layers.1.mlp.up_proj.weight"
    write_base(tmp_path)

    def save(tensors):
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})

    whole = load_file(tmp_path / "model.safetensors")
    save({name: tensor for name, tensor in whole.items() if name != lost})
    with pytest.raises(UserError, match=r"lack 1 tensors.*layers.1.mlp.up_proj"):
        load(str(tmp_path), device="cpu")
    save(whole | {"oddity": torch.ones(1)})
    with pytest.raises(UserError, match="'oddity'"):
        load(str(tmp_path), device="cpu")


def test_heads_that_do_not_fit_the_base(tmp_path):
    write_base(tmp_path / "base")
    says = r"'0.1.weight' is \[77, 32\]; this base model needs \[101, 32\]"
    with pytest.raises(UserError, match=says):
        load(write_medusa1(tmp_path / "heads", "../base", vocab=77), device="cpu")


def test_a_base_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"base model of .* is not a folder"):
        load(write_medusa1(tmp_path / "heads", "../nowhere"), device="cpu")


def test_medusa_1_without_heads(tmp_path):
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    (tmp_path / "heads" / "medusa_lm_head.pt").unlink()
    with pytest.raises(UserError, match="has no heads: expected medusa_lm_head"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    "pickler", [torch.save, lambda bomb, path: path.write_bytes(pickle.dumps(bomb))]
)
def test_a_checkpoint_never_executes_code(tmp_path, pickler):
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    bomb = {"0.0.linear.weight": Bomb(tmp_path / "boom")}
    pickler(bomb, tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(UserError, match="not a plain tensor file"):
        load(folder, device="cpu")
    assert not (tmp_path / "boom").exists()


def test_a_pickle_of_something_else(tmp_path):
    write_base(tmp_path / "base")
    folder = write_medusa1(tmp_path / "heads", "../base")
    torch.save([1, 2], tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(UserError, match="holds a list"):
        load(folder, device="cpu")


def test_a_family_that_cannot_attend_a_tree(tmp_path):
    write_base(tmp_path)
    shutil.rmtree(tmp_path / "model.safetensors", ignore_errors=True)
    config = BloomConfig(vocab_size=101, hidden_size=32, n_layer=2, n_head=4)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="BloomForCausalLM cannot attend a tree"):
        load(str(tmp_path), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_what_needs_a_gpu_says_so():
    with pytest.raises(UserError, match=r"'cuda' was asked for, but this machine has"):
        check_device("cuda")
    with pytest.raises(UserError, match="need a CUDA GPU"):
        check_device("auto", quantised=True)
    with pytest.raises(UserError, match="unknown device 'gpu'"):
        check_device("gpu")
    with pytest.raises(UserError, match="this machine has"):
        check_device("balanced")


def test_names_are_checked_before_anything_is_loaded(tmp_path):
    check_model_name("demo")
    check_model_name("lmsys/vicuna-7b-v1.3")
    (tmp_path / "file").touch()
    for name, says in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "none", "does not exist"),
        (tmp_path, "config.json"),
    ):
        with pytest.raises(UserError, match=says):
            check_model_name(str(name))


@pytest.mark.parametrize("tensors", [None, tiny_heads().published()])
def test_a_model_without_an_output_projection_is_told(tensors):
    lm = tiny_llama()
    lm.get_output_embeddings = lambda: None
    with pytest.raises(UserError, match=r"'tiny' cannot be used: .* has no output projection"):
        _engine("tiny", lm, None, tensors, False, compile=False)


def test_weights_that_stand_twice_are_told(tmp_path):
    """An older file may be the one that is read."""
    folder = str(write_base(tmp_path))
    assert not load(folder, device="cpu").warnings
    torch.save({}, tmp_path / "pytorch_model.bin")
    [warning] = load(folder, device="cpu").warnings
    assert "(model.safetensors, pytorch_model.bin); those of model.safetensors are" in warning


def test_a_pattern_that_transformers_calls_wrong_is_told(tiny_model):
    tokenizer = tiny_tokenizer()
    asked = GenerationConfig()
    model = SimpleNamespace(tokenizer=tokenizer, lm=tiny_model.lm, context=tiny_model.context)
    assert not list(warnings_about(model, asked))
    model.tokenizer = SimpleNamespace(backend_tokenizer=SimpleNamespace(fix_mistral_regex=False))
    [warning] = warnings_about(model, asked)
    assert "splits text by a wrong pattern" in warning


@pytest.mark.parametrize(
    ("flag", "own", "expected"),
    [
        ("bfloat16", torch.float16, torch.bfloat16),
        ("auto", torch.float16, torch.float16),
        ("auto", None, torch.bfloat16),
    ],
)
def test_four_bit_products_are_in_the_models_dtype(flag, own, expected):
    """transformers' default is float32, which is slow."""
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(dtype=own))
    assert loader._compute_dtype(flag, config) == expected
