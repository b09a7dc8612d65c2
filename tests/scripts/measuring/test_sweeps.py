"""sweep.py: one run where it can be."""

import json
import subprocess
from types import SimpleNamespace

import pytest
import sweep

from bench.common.errors import UserError
from measuring.sweeps import specs
from measuring.sweeps import sweep as run_all
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import script


def test_sweep_is_one_run_where_it_can_be_and_a_run_a_temperature(tmp_path, capfd):
    model, questions = write_merged(tmp_path / "tiny"), tmp_path / "q.jsonl"
    rows = [{"question_id": n, "category": "math", "turns": ["1 + 1?"]} for n in (1, 2)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "out"
    arguments = [
        "--nodes", "4,8", "--topk", "2,4", "--temperature", "0,0.7", "--out", out, "--model", model,
        "--questions", questions, "--max-new-tokens", 12, "--device", "cpu",
    ]  # fmt: skip
    assert script(sweep.main, *arguments) == 0
    assert "0.7/dynamic:nodes=8:topk=4" in capfd.readouterr().out
    for name in ("0", "0.7"):
        assert len((out / name / "turns.jsonl").read_text().splitlines()) == 5 * 2
    figures = {path.name for path in (out / "figures").iterdir()}
    assert {f"sweep_{name}.png" for name in ("nodes", "topk", "temperature")} <= figures
    assert script(sweep.main, *arguments, "--decoder", "dinamic") == 2
    said = capfd.readouterr().err
    assert "unknown decoder 'dinamic'. Did you mean 'dynamic'? Available: assisted," in said


def test_a_label_tells_what_is_swept():
    made = specs(["mine=dynamic:depth=2"], {"nodes": ["8", "16"]})
    assert made[1:] == [
        "mine-nodes8=dynamic:depth=2:nodes=8",
        "mine-nodes16=dynamic:depth=2:nodes=16",
    ]
    assert specs(["mine=dynamic"], {})[1:] == ["mine=dynamic"]


def test_an_option_that_no_decoder_has_is_refused():
    with pytest.raises(UserError, match="--topk has no effect on suffix"):
        specs(["suffix"], {"nodes": ["8"], "topk": ["8", "32"]})


def test_failed_turns_of_any_run_are_in_the_exit_status(tmp_path, monkeypatch):
    """Of two runs the first had some. The sweep ended with 0."""
    statuses = iter([1, 0])
    monkeypatch.setattr(subprocess, "run", lambda line: SimpleNamespace(returncode=next(statuses)))
    status, folders = run_all(["dynamic"], {}, {"temperature": ["0", "1"]}, tmp_path, [])
    assert status == 1 and len(folders) == 2
