"""Folders with trained heads."""

import pytest
import torch
from safetensors.torch import load_file

from bench.common.errors import UserError
from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base, write_medusa1
from tests.helpers.gguf import write_gguf
from tests.helpers.models import tiny_heads, tiny_llama
from training import head_files
from training.head_files import refuse_own_folder, write_folder
from training.medusa import write_heads, write_merged


def test_an_interruption_leaves_the_earlier_result_as_it_is(tmp_path, monkeypatch):
    loaded, out = load(str(write_base(tmp_path / "base")), device="cpu"), tmp_path / "out"

    def write(value: float, heads: int) -> None:
        tensors = {"weight": torch.full((3,), value)}
        write_folder(loaded, out, "heads.safetensors", tensors, {"heads": heads})

    def torn(_tensors, path, **_) -> None:
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    write(1.0, heads=2)
    before = (out / "config.json").read_bytes(), (out / "heads.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(head_files, "save_file", torn)
        with pytest.raises(KeyboardInterrupt):
            write(5.0, heads=3)
    assert before == ((out / "config.json").read_bytes(), (out / "heads.safetensors").read_bytes())
    write(5.0, heads=3)
    assert load_file(out / "heads.safetensors")["weight"].tolist() == [5.0] * 3
    modes = {file.name: file.stat().st_mode for file in out.iterdir()}
    assert modes.keys() == {"config.json", "heads.safetensors"} and len(set(modes.values())) == 1


def test_a_generation_config_that_transformers_would_not_save_is_written(tmp_path):
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    loaded.generation_config.update(temperature=0.6, top_p=0.9)  # Without do_sample.
    with pytest.raises(ValueError):
        loaded.generation_config.save_pretrained(tmp_path)
    write_merged(loaded, tiny_heads(), tmp_path / "merged", torch.float32)
    again = load(str(tmp_path / "merged"), device="cpu")
    assert again.model.num_heads == 4 and again.eos == {2}
    assert (again.generation_config.temperature, again.generation_config.top_p) == (0.6, 0.9)


def test_folders_of_the_model_itself_are_refused(tmp_path):
    write_base(tmp_path / "base")
    loaded = load(write_medusa1(tmp_path / "heads", "../base"), device="cpu")
    for own in ("base", "heads"):
        with pytest.raises(UserError, match=f"{own} is the model's own folder"):
            refuse_own_folder(loaded, tmp_path / own)
    refuse_own_folder(loaded, tmp_path / "heads" / "next")


def test_heads_of_a_gguf_file_name_the_file(tmp_path):
    """Its folder may hold another checkpoint, which was then their base model."""
    base = write_base(tmp_path / "both")
    lm = tiny_llama(seed=5, rms_norm_eps=1e-5)
    path = write_gguf(tmp_path / "both" / "tiny.gguf", lm)
    loaded = load(str(path), device="cpu")
    write_heads(tiny_heads(), loaded, tmp_path / "heads", torch.float32)
    again = load(str(tmp_path / "heads"), device="cpu")
    expected = lm.state_dict()["model.norm.weight"]
    assert base != path and again.base == str(path.resolve())
    torch.testing.assert_close(again.model.lm.state_dict()["model.norm.weight"], expected)
    with pytest.raises(UserError, match="is the model's own folder"):
        refuse_own_folder(again, tmp_path / "both")


def test_another_format_replaces_the_heads_of_an_earlier_session(tmp_path):
    """The earlier file would be read instead."""
    loaded, out = load(str(write_base(tmp_path / "base")), device="cpu"), tmp_path / "out"
    first, second = tiny_heads(), tiny_heads(seed=1)
    write_heads(first, loaded, out, torch.float32)
    write_heads(second, loaded, out, torch.float32, "vllm")
    read = load(str(out), device="cpu").model.heads
    torch.testing.assert_close(read.block_weight, second.block_weight)
