"""Reports of runs and of answer files, side by side."""

import json
import re

import pandas as pd
import pytest

from bench.reporting.comparison import Report
from bench.reporting.sources import open_answers, open_run
from tests.helpers.paths import SHARED
from tests.helpers.runs import random_turns, write_run

MEDUSA = SHARED / "mt_bench" / "medusa" / "model_answer"
QUESTIONS = SHARED / "mt_bench" / "fastchat" / "question.jsonl"
NAME = "medusa-vicuna-{}-v1.3-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3"


@pytest.mark.parametrize(
    ("size", "tpi", "speed"), [("7b", 2.5650, 101.3), ("13b", 2.6380, 73.8), ("33b", 2.5137, 36.6)]
)
def test_the_published_numbers(size, tpi, speed):
    if not MEDUSA.is_dir():
        pytest.skip(f"the published answers are not at {MEDUSA}")
    made = Report.of([open_answers(MEDUSA / f"{NAME.format(size)}.jsonl", str(QUESTIONS))])
    [row] = made.summary.to_dict("records")
    assert row["tokens_per_inference"] == pytest.approx(tpi, abs=5e-5)
    assert row["tokens_per_second_with_prefill"] == pytest.approx(speed, abs=0.05)
    # The files do not hold the time without prefill.
    assert pd.isna(row["tokens_per_second"]) and pd.isna(row["wall_clock_ratio"])
    by_category = made.by_category.set_index("category").tokens_per_inference
    if size == "7b":
        assert by_category.coding == pytest.approx(2.893, abs=5e-4)
        assert by_category.humanities == pytest.approx(2.324, abs=5e-4)
    failed = [warning for warning in made.warnings if "question 154" in warning]
    assert len(failed) == (size == "13b")
    message = "turn 2 is recorded as an error with the numbers of the turn before; it is left out"
    assert all(message in warning for warning in failed)


def test_every_format_has_the_same_numbers(tmp_path, capsys):
    run = write_run(tmp_path / "run", random_turns(["greedy", "static", "dynamic"]))
    made = Report.of([open_run(run)])

    def printed(form: str) -> str:
        made.show(form)
        return capsys.readouterr().out

    out = printed("json")
    record = json.loads(out)
    [dynamic] = [row for row in record["decoders"] if row["decoder"] == "dynamic"]
    number = f"{dynamic['tokens_per_inference']:.3f}"
    assert record["schema_version"] == 1 and record["verdicts"]
    assert record["by_category"] and record["acceptance_by_depth"]
    out = printed("markdown")
    assert re.search(rf"^\| dynamic \|.* {number} \(", out, re.M) and "| --- | ---: |" in out
    out = printed("latex")
    assert re.search(rf"^dynamic & .* {number} .*\\\\$", out, re.M) and r"\toprule" in out


def test_names_from_strangers_are_text(tmp_path):
    name = "a|b_$<script>\\x[y](z)"
    run = write_run(tmp_path / "run", random_turns(["greedy", name], categories=("c_$&", "<i>")))
    made = Report.of([open_run(run)])
    out = "".join(table.markdown() for table in made.tables())
    assert r"a\|b\_$&lt;script&gt;\\x\[y\](z)" in out and "<script>" not in out
    assert r"c\_\$\&" in "".join(table.latex() for table in made.tables())
    made.show("terminal")
    assert made.draw(tmp_path / "figures")
