"""docs/own_decoder.md does what it says: its code is run as it stands there."""

import json
import re
import runpy
import sys

import pytest

from tests.helpers.commands import bench
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "own_decoder.md").read_text(encoding="utf-8")
DECODER, MAKER, TEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PYPROJECT = re.search(r"```toml\n(.*?)```", PAGE, re.DOTALL)[1]
SHORT = ["--limit", 2, "--max-new-tokens", 24, "--device", "cpu"]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder with the page's files, installed as pip would install them."""
    (tmp_path / "my_bigram.py").write_text(DECODER)
    (tmp_path / "make_bigram.py").write_text(MAKER)
    (tmp_path / "test_my_bigram.py").write_text(TEST)
    info = tmp_path / "my_bigram-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-bigram\nVersion: 0.1\n")
    entry = re.search(r'\[project.entry-points."(.*?)"\]\n(.*?)\n\n', PYPROJECT, re.DOTALL)
    lines = entry[2].replace('"', "")
    (info / "entry_points.txt").write_text(f"[{entry[1]}]\n{lines}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for module in ("my_bigram", "test_my_bigram"):
        sys.modules.pop(module, None)


def test_the_page_is_short():
    lines = [line for block in (DECODER, TEST) for line in block.splitlines() if line.strip()]
    assert len(lines) < 60


def test_a_decoder_with_weights_of_its_own(package, monkeypatch):
    assert bench("--out", "results/a", "--decoder", "greedy", *SHORT) == 0
    monkeypatch.setattr(sys, "argv", ["make_bigram.py", "results/a", "bigram.safetensors"])
    runpy.run_path("make_bigram.py")
    spec = "bigram:nodes=8:table=bigram.safetensors"
    arguments = ["--out", "results/b", "--decoder", f"greedy,{spec}", "--temperature", 0, *SHORT]
    assert bench(*arguments) == 0
    rows = [json.loads(line) for line in (package / "results/b/turns.jsonl").open()]
    by_decoder = {
        name: [row["token_ids"] for row in rows if row["decoder"] == name]
        for name in ("greedy", spec)
    }
    assert by_decoder["greedy"] == by_decoder[spec]
    drafted = [row for row in rows if row["decoder"] == spec]
    assert sum(len(row["accept_lengths"]) for row in drafted) < sum(
        len(row["token_ids"]) for row in drafted
    )
    runpy.run_path("test_my_bigram.py")["test_tokens_are_greedys"]()


def test_another_table_is_another_run(package, capsys):
    """A file that the options name may change under its name."""
    import torch
    from safetensors.torch import save_file

    arguments = ["--decoder", "bigram:table=t.safetensors", "--out", "run", *SHORT]
    save_file({"successor": torch.arange(4096)}, "t.safetensors")
    assert bench(*arguments) == 0
    save_file({"successor": torch.zeros(4096, dtype=torch.long)}, "t.safetensors")
    assert bench(*arguments) == 2
    assert "another configuration (files: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (None, "needs bigram.safetensors, but t.safetensors does not exist"),
        ({"other": 2048}, "t.safetensors: expected a tensor 'successor'"),
        ({"successor": 7}, "t.safetensors: expected a tensor 'successor'"),
    ],
)
def test_weights_that_are_missing_or_wrong_are_named(package, capsys, tensors, says):
    import torch
    from safetensors.torch import save_file

    if tensors is not None:
        made = {name: torch.zeros(size, dtype=torch.long) for name, size in tensors.items()}
        save_file(made, "t.safetensors")
    assert bench("--decoder", "bigram:table=t.safetensors", "--out", "run", *SHORT) == 2
    said = capsys.readouterr().err
    assert says in said and "bigram:table=t.safetensors" in said


def test_without_weights_the_missing_file_is_named(package, capsys):
    assert bench("--decoder", "bigram", "--out", "run", *SHORT) == 2
    assert "needs bigram.safetensors, which is not beside the model" in capsys.readouterr().err
