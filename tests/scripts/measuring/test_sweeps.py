"""sweep.py: one run where it can be."""

import json

import sweep

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
