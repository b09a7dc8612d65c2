"""Reports of runs and of answer files, side by side."""

import json
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from bench.reporting.comparison import Report, write_summary
from bench.reporting.page import write_page
from bench.reporting.sources import open_answers, open_run
from tests.helpers.paths import SHARED
from tests.helpers.runs import random_turns, run_json, write_run

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


@pytest.mark.parametrize("model", ["demo", "other"])
def test_the_page_says_of_the_demos_answers_that_they_are_nonsense(tmp_path, model):
    turns = random_turns(["greedy", "dynamic"])
    config = run_json(turns)["config"] | {"model": model}
    made = Report.of([open_run(write_run(tmp_path / "run", turns, config=config))])
    write_page(tmp_path / "report.html", made.page([]))
    html = (tmp_path / "report.html").read_text()
    assert ("its answers are nonsense" in html) == (model == "demo")


def test_nothing_of_a_strangers_name_reaches_the_terminal_or_breaks_a_figure(tmp_path, capfd):
    steering = "\x1b]0;owned\x07\x1b[2J\u202e"
    choice = {"turns": ["x"], "idxs": [3], "new_tokens": [10], "wall_time": [1.0]}
    for name in ("a", "b"):
        rows = [
            {"question_id": at, "model_id": name + steering, "category": f"c{at % 2}{steering}"}
            for at in range(4)
        ]
        lines = (json.dumps(row | {"choices": [choice]}) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    sources = [open_answers(tmp_path / f"{name}.jsonl") for name in ("a", "b")]
    made = Report.of(sources)
    made.show("terminal")
    write_summary(tmp_path / "out", made)
    printed = "".join(capfd.readouterr())
    assert "owned" in printed and not set(printed) & set(steering[:1] + "\x07\u202e")
    figures = list((tmp_path / "out" / "figures").glob("*.svg"))
    assert figures
    for figure in figures:
        ElementTree.fromstring(figure.read_bytes())
