"""Models by name: downloaded by the real pip from a local folder, checked, converted, offline."""

import hashlib
import json
import zipfile
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from bench.common.errors import UserError
from bench.common.files import sole_writer
from bench.inputs import fetched_models, gguf_files, published_models
from bench.inputs.fetched_models import fetched_model
from bench.inputs.loader import load
from bench.inputs.published_models import MODELS, heads_folder, is_here, published_name
from decoders.eagle import head as eagle
from tests.helpers.gguf import write_gguf
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama

HUB_ID = "org/tiny-llama"


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A published model "tiny": its wheel in a folder that is pip's only index; its heads."""
    gguf = write_gguf(tmp_path / "tiny.gguf", tiny_llama(rms_norm_eps=1e-5))
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "tiny_model-1.0-py3-none-any.whl"
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf, "tiny_model/tiny.gguf")
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    heads = tmp_path / "tiny"
    heads.mkdir()
    blocks = {
        name: each.clone() for name, each in tiny_heads().published().items() if "linear" in name
    }
    save_file(blocks, heads / "medusa_lm_head.safetensors")
    config = {"base_model_name_or_path": HUB_ID, "original_lm_head": True}
    (heads / "config.json").write_text(json.dumps(config))
    model = replace(
        MODELS["smollm2"], package="tiny-model", version="1.0", wheel_sha256=sha256(wheel),
        file="tiny_model/tiny.gguf", file_sha256=sha256(gguf), hub_id=HUB_ID,
    )  # fmt: skip
    monkeypatch.setitem(published_models.MODELS, "tiny", model)
    monkeypatch.setattr(published_models, "__file__", str(tmp_path / "published_models.py"))
    monkeypatch.setenv("MEDUSA_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return wheel


def test_a_model_is_fetched_once_and_read_offline(tiny, monkeypatch):
    assert not is_here("tiny")
    loaded = load("tiny", device="cpu")
    assert is_here("tiny")
    monkeypatch.setattr(fetched_models.subprocess, "run", lambda *a, **k: pytest.fail("downloaded"))
    again = load("tiny", device="cpu")
    assert again.identity == loaded.identity and loaded.name == "tiny"
    expected = tiny_llama(rms_norm_eps=1e-5)(PROMPT[None]).logits[0, -1]
    logits = again.model.prefill(PROMPT, room=0).logits[-1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_of_two_processes_that_fetch_a_model_the_later_one_waits(tiny, monkeypatch):
    """It removed the folder that the earlier one was already loading."""
    folder = published_models.model_folder("tiny")
    folder.parent.mkdir(parents=True)
    monkeypatch.setattr(fetched_models, "FETCH_S", 0.0)
    with sole_writer(folder), pytest.raises(UserError, match=r"tiny-1\.0 is being written by"):
        fetched_model("tiny")

    def fetched_meanwhile(what: str) -> None:
        folder.mkdir()
        (folder / published_models.RECORD).write_text("{}")

    monkeypatch.setattr(fetched_models, "check_package", fetched_meanwhile)
    monkeypatch.setattr(fetched_models, "_download", lambda *_: pytest.fail("downloaded"))
    assert fetched_model("tiny") == folder


def test_its_heads_end_in_the_models_own_projection(tiny):
    model = load("tiny", device="cpu").model
    assert model.num_heads == 4 and model.heads.shares_projection
    assert published_name(HUB_ID) == "tiny" and published_name("org/other") is None


@pytest.mark.parametrize("changed", ["wheel_sha256", "file_sha256"])
def test_another_file_than_expected_is_not_kept(tiny, monkeypatch, changed):
    wrong = replace(MODELS["tiny"], **{changed: "0" * 64})
    monkeypatch.setitem(published_models.MODELS, "tiny", wrong)
    with pytest.raises(UserError, match=f"is not the file that was expected.*--model {HUB_ID}"):
        fetched_model("tiny")
    assert not is_here("tiny")


def test_a_package_that_cannot_be_had_is_one_line(tiny):
    tiny.unlink()
    with pytest.raises(UserError, match=rf"tiny-model==1.0 cannot be downloaded by pip.*{HUB_ID}"):
        fetched_model("tiny")


def test_without_pip_that_is_said(tiny, monkeypatch):
    monkeypatch.setattr(fetched_models, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=rf"python -m ensurepip.*--model {HUB_ID}"):
        fetched_model("tiny")


def test_without_the_gguf_package_nothing_is_downloaded(tiny, monkeypatch):
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    monkeypatch.setattr(fetched_models.subprocess, "run", lambda *a, **k: pytest.fail("downloaded"))
    with pytest.raises(UserError, match=r"model 'tiny' .* pip install 'medusa-bench\[gguf\]'"):
        fetched_model("tiny")


def test_a_full_disk_leaves_nothing_that_looks_whole(tiny, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fetched_models, "_convert", full)
    with pytest.raises(UserError, match=r"No space left on device; make room, or set MEDUSA_BENCH"):
        fetched_model("tiny")
    assert not is_here("tiny")


def test_the_shipped_heads_are_small_and_have_no_projection():
    folder = heads_folder("smollm2")
    config = json.loads((folder / "config.json").read_text())
    assert config["base_model_name_or_path"] == MODELS["smollm2"].hub_id
    assert config["original_lm_head"] is True
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes.pop(eagle.FILE) < 10e6
    assert sum(sizes.values()) < 12e6  # Medusa's heads, and what is fitted to them.
