"""Reports of runs and of answer files: what is shown, what is said about it, and what is drawn."""

import doctest
import json
import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from bench import report
from bench.common.errors import exit_cleanly
from bench.report import Report
from bench.reporting.figures import phases, sweep
from bench.reporting.sources import open_answers, open_run, open_sources
from tests.helpers.paths import SHARED
from tests.helpers.runs import ENVIRONMENT, make_turn, random_turns, write_run

MEDUSA = SHARED / "mt_bench" / "medusa" / "model_answer"
QUESTIONS = SHARED / "mt_bench" / "fastchat" / "question.jsonl"
NAME = "medusa-vicuna-{}-v1.3-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3"


def shown(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run the command; (exit status, stdout, stderr)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.report", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(report.main)
    printed = capsys.readouterr()
    return ended.value.code, printed.out, printed.err


@pytest.fixture
def run(tmp_path) -> Path:
    return write_run(tmp_path / "mine", random_turns(["greedy", "static", "dynamic"]))


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
    assert pd.isna(row["tokens_per_second"]) and pd.isna(
        row["wall_clock_ratio"]
    )  # the files do not tell
    by_category = made.by_category.set_index("category").tokens_per_inference
    if size == "7b":
        assert by_category.coding == pytest.approx(2.893, abs=5e-4)
        assert by_category.humanities == pytest.approx(2.324, abs=5e-4)
    failed = [said for said in made.warnings if "question 154" in said]
    assert len(failed) == (size == "13b")
    assert all(
        "turn 2 is recorded as an error with the numbers of the turn before; it is left out" in said
        for said in failed
    )


def test_a_run_is_shown_and_its_files_are_made(run, capsys):
    status, out, err = shown(capsys, run)
    assert status == 0 and "warning" not in err
    for title in (
        "Comparison",
        "By category",
        "By turn",
        "Acceptance",
        "As Spec-Bench computes it",
    ):
        assert title in out
    assert "faster" in out and re.search(
        r"most tokens per inference: dynamic with \d\.\d+, \d\.\d+x static's \(95 %:", out
    )
    table = pd.read_csv(run / "summary.csv").set_index("decoder")
    assert (
        table.tpi_ratio_low["dynamic"]
        < table.tpi_ratio["dynamic"]
        < table.tpi_ratio_high["dynamic"]
    )
    assert (run / "figures" / "tokens_per_inference.svg").exists() and len(
        list((run / "answers").iterdir())
    ) == 3


def test_no_difference_is_said_in_words(tmp_path, capsys):
    turns = random_turns(["greedy", "static"])
    twins = [make_turn("twin", t.accept_lengths[::-1], t.decode_s, question_id=t.question_id, turn=t.turn, category=t.category)
             for t in turns if t.decoder == "static"]  # fmt: skip
    _, out, _ = shown(capsys, write_run(tmp_path / "run", [*turns, *twins]), "--baseline", "static")
    assert re.search(r"twin .* no significant difference", out)
    assert re.search(r"most tokens per inference: .* 1\.00x .*, no significant difference", out)


def test_every_format_has_the_same_numbers(run, capsys):
    made = Report.of([open_run(run)])

    def printed(form: str) -> str:
        made.show(form)
        return capsys.readouterr().out

    out = printed("json")
    record = json.loads(out)
    [dynamic] = [row for row in record["decoders"] if row["decoder"] == "dynamic"]
    number = f"{dynamic['tokens_per_inference']:.3f}"
    assert (
        record["schema_version"] == 1
        and record["by_category"]
        and record["acceptance_by_depth"]
        and record["verdicts"]
    )
    out = printed("markdown")
    assert f"| dynamic | {number} (" in out and "| --- | ---: |" in out
    out = printed("latex")
    assert re.search(rf"^dynamic & {number} .*\\\\$", out, re.M) and r"\toprule" in out


def test_names_from_strangers_are_text(tmp_path):
    name = "a|b_$<script>\\x[y](z)"
    run = write_run(tmp_path / "run", random_turns(["greedy", name], categories=("c_$&", "<i>")))
    made = Report.of([open_run(run)])
    out = "".join(table.markdown() for table in made.tables())
    assert r"a\|b\_$&lt;script&gt;\\x\[y\](z)" in out and "<script>" not in out
    assert r"c\_\$\&" in "".join(table.latex() for table in made.tables())
    made.show("terminal")
    assert made.draw(tmp_path / "figures")


def test_runs_and_answer_files_side_by_side(run, tmp_path, capsys):
    other = write_run(tmp_path / "other", random_turns(["greedy", "dynamic"]))
    shown(capsys, run)
    file = run / "answers" / "demo-dynamic.jsonl"
    status, out, err = shown(
        capsys, run, other, file, "--out", tmp_path / "all", "--format", "json"
    )
    record = json.loads(out)
    assert status == 0 and [row["decoder"] for row in record["decoders"]] == [
        "mine/greedy", "mine/static", "mine/dynamic", "other/greedy", "other/dynamic", "demo-dynamic",
    ]  # fmt: skip
    by_name = {row["decoder"]: row for row in record["decoders"]}
    assert (
        by_name["other/dynamic"]["baseline"] == "other/greedy"
        and by_name["demo-dynamic"]["wall_clock_ratio"] is None
    )
    assert (
        by_name["demo-dynamic"]["tokens_per_inference"]
        == by_name["mine/dynamic"]["tokens_per_inference"]
    )
    assert (
        by_name["demo-dynamic"]["accept_length_histogram"]
        == by_name["mine/dynamic"]["accept_length_histogram"]
    )
    assert (
        "what machine timed demo-dynamic is not recorded" in err and "different machines" not in err
    )
    assert (tmp_path / "all" / "figures" / "tokens_per_inference.png").exists()
    assert not any(
        "per second" in said for said in record["verdicts"]
    )  # one of them may be of another machine
    _, out, _ = shown(capsys, run, file, "--baseline", "demo-dynamic", "--format", "json")
    ratios = {row["decoder"]: row for row in json.loads(out)["decoders"]}
    assert ratios["mine/dynamic"]["tpi_ratio"] == 1.0
    assert ratios["mine/dynamic"]["wall_clock_ratio_with_prefill"] == pytest.approx(1.0)


def test_other_machines_are_said(run, tmp_path, capsys):
    other = write_run(
        tmp_path / "other", random_turns(["greedy"]), environment=ENVIRONMENT | {"torch": "2.10"}
    )
    _, _, err = shown(capsys, run, other)
    assert (
        "warning: times do not compare, only tokens per inference" in err
        and "torch: 2.9 in mine, 2.10 in other" in err
    )
    fewer = write_run(tmp_path / "fewer", random_turns(["greedy"], questions=2))
    assert "fewer and mine answer different questions" in shown(capsys, run, fewer)[2]
    moved = write_run(
        tmp_path / "moved",
        random_turns(["greedy"]),
        sessions=[{"environment": {"a": 1}}, {"environment": {"a": 2}}],
    )
    assert "its sittings were on different machines" in shown(capsys, moved)[2]


def test_a_run_that_is_not_whole_is_shown_with_a_line_about_each_lack(tmp_path, capsys):
    turns = random_turns(["greedy", "dynamic"])
    failed = make_turn("dynamic", [], 0.0, question_id=0, finish_reason="error", error="boom")
    timeless = make_turn("dynamic", [2], float("nan"), question_id=0, turn=2)
    run = write_run(tmp_path / "run", [*turns[4:], *turns[:2], failed, timeless], end=None)
    with (run / "turns.jsonl").open("a") as file:
        file.write('{"question_id": 3, "deco')
    status, out, err = shown(capsys, run)
    assert status == 0 and "dynamic" in out
    for said in (
        "is torn",
        "in progress, or was interrupted",
        "dynamic: 19 of 20 turns",
        "1 of 19 turns have no usable time",
    ):
        assert sum(said in line for line in err.splitlines()) == 1, said
    assert len(err.splitlines()) == 5  # and what was written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 9}, "has schema version 9; this version reads 1"),
        ({"config": None}, "is damaged"),
    ],
)
def test_a_run_of_another_version_is_shown_by_its_answer_files(changes, said, run, capsys):
    shown(capsys, run)
    damaged = json.loads((run / "run.json").read_text()) | changes
    (run / "run.json").write_text(json.dumps(damaged))
    status, out, err = shown(capsys, run)
    assert status == 1 and "demo-dynamic" in out
    assert said in err and "its answer files are shown instead" in err


def test_what_cannot_be_shown_does_not_hide_the_rest(run, tmp_path, capsys):
    empty = write_run(tmp_path / "empty", [])
    status, out, err = shown(capsys, empty, run, tmp_path / "nowhere")
    assert status == 1 and "dynamic" in out
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (
        "empty has no finished turn" in errors[0]
        and "does not exist" in errors[1]
        and len(errors) == 2
    )


def test_turns_of_decoders_that_a_run_does_not_name(tmp_path, capsys):
    """A run.json of another run lies beside them: a report of no decoder ended in a ZeroDivisionError."""
    run = write_run(
        tmp_path / "run", random_turns(["greedy", "static", "dynamic"], questions=2, steps=4)
    )
    written = json.loads((run / "run.json").read_text())

    def named(*decoders: str) -> tuple[int, str, str]:
        written["config"]["decoders"] = decoders
        (run / "run.json").write_text(json.dumps(written))
        return shown(capsys, run, "--format", "markdown")

    status, out, err = named("hydra", "eagle")
    assert status == 2 and out == "" and err.count("\n") == 1
    assert (
        "has no finished turn; " in err
        and "has turns of 'dynamic' and 2 more decoders, which run.json does not name" in err
    )
    status, out, err = named("greedy", "hydra")
    assert status == 0 and "greedy" in out and "dynamic" not in out and "hydra: 0 of" in err
    assert (
        "turns of 'dynamic' and 1 more decoders, which run.json does not name; they are left out"
        in err
    )
    page = (run / "report.html").read_text()
    assert "greedy" in page and '"static"' not in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing to report"),
        (["{tmp}/nowhere"], "does not exist; expected a run's folder or an answer file"),
        (["{tmp}"], "is neither a run's folder (it has no run.json) nor a folder of answer files"),
        (
            ["{tmp}/run", "--baseline", "hydra"],
            "--baseline is 'hydra'; expected one of greedy, dynamic",
        ),
        (["{tmp}/texts.jsonl"], "has no numbers to report"),
        (["--phases", "{tmp}/run/turns.jsonl"], "is not JSON"),
        (
            ["--phases", "{tmp}/run/run.json"],
            "has no rows; expected the JSON file that scripts/bench_step.py writes",
        ),
    ],
)
def test_what_is_wrong_is_one_line(arguments, said, tmp_path, capsys):
    write_run(tmp_path / "run", random_turns(["greedy", "dynamic"]))
    if "texts" in str(arguments):
        row = {"question_id": 1, "model_id": "m", "choices": [{"index": 0, "turns": ["a"]}]}
        (tmp_path / "texts.jsonl").write_text(json.dumps(row) + "\n")
    status, _, err = shown(capsys, *(each.format(tmp=tmp_path) for each in arguments))
    assert status == 2 and said in err and err.count("\n") == 1


def test_runs_that_were_set_differently_are_shown_and_none_is_said_to_lead(tmp_path, capsys):
    for name, temperature in (("cold", 0.0), ("warm", 0.7)):
        folder = write_run(tmp_path / name, random_turns(["greedy", "dynamic"]))
        run = json.loads((folder / "run.json").read_text())
        run["config"]["temperature"] = temperature
        (folder / "run.json").write_text(json.dumps(run))
    _, out, err = shown(capsys, tmp_path / "cold", tmp_path / "warm")
    assert (
        "were set differently, and none is said to lead: temperature 0.0, 0.7" in err
        and "cold/dynamic" in out
    )
    assert "most tokens" not in out
    _, out, err = shown(capsys, tmp_path / "cold")
    assert "were set differently" not in err and "most tokens" in out


def test_of_a_folder_what_can_be_shown_is_shown(tmp_path, capsys):
    """FastChat's own answers have no numbers, which is nothing wrong; an empty file is."""
    folder, row = (
        tmp_path / "model_answer",
        {"question_id": 1, "choices": [{"index": 0, "turns": ["a"]}]},
    )
    folder.mkdir()
    timed = {"index": 0, "turns": ["a"], "idxs": [1], "new_tokens": [4], "wall_time": [0.5]}
    (folder / "ours.jsonl").write_text(
        json.dumps(row | {"model_id": "ours", "choices": [timed]}) + "\n"
    )
    (folder / "gpt-4.jsonl").write_text(json.dumps(row | {"model_id": "gpt-4"}) + "\n")
    status, out, err = shown(capsys, folder)
    assert (
        status == 0
        and "ours" in out
        and "gpt-4.jsonl has no numbers to report" in err
        and "it is left out" in err
    )
    (folder / "empty.jsonl").touch()
    status, out, err = shown(capsys, folder)
    assert (
        status == 1
        and "ours" in out
        and "error: " in err
        and "empty.jsonl has no answer in it" in err
    )
    (folder / "ours.jsonl").unlink()
    status, out, err = shown(capsys, folder)
    assert status == 2 and "none of these can be shown" in err


@pytest.mark.parametrize(
    "decoders", [["dynamic"], ["greedy", *(f"dynamic:nodes={2**n}" for n in range(2, 8)), "static"]]
)
def test_figures_of_one_decoder_and_of_eight_with_a_category_missing(decoders, tmp_path):
    run = write_run(
        tmp_path / "run",
        random_turns(decoders, ("math", "coding"), 3, missing=[(decoders[-1], "coding")]),
    )
    made = Report.of([open_run(run)]).draw(tmp_path / "figures")
    expected = ["tokens_per_inference", "accept_lengths", "accept_length_along"]
    if len(decoders) > 1:
        expected += ["wall_clock_ratio", "acceptance_by_depth", "sweep_nodes"]
    assert sorted(figure.name for figure in made) == sorted(expected)
    for figure in made:
        assert (
            figure.path.read_bytes().startswith(b"\x89PNG")
            and figure.title
            and figure.caption.endswith(".")
        )
        drawn = figure.path.with_suffix(".svg").read_text()
        assert drawn.startswith("<?xml") and "NaN" not in drawn


def test_the_same_numbers_draw_the_same_file(run, tmp_path):
    made = Report.of(open_sources(run)[0])
    first, second = (
        made.draw(tmp_path / name)[0].path.with_suffix(".svg").read_bytes() for name in "ab"
    )
    assert first == second


def test_phases_are_drawn_from_their_file(tmp_path, capsys):
    row = {f"{phase}_s": 0.001 for phase in phases.PHASES} | {"decoder": "greedy", "length": 128}
    row |= {"operations": 3, "synchronisations": 1}
    (tmp_path / "step.json").write_text(
        json.dumps({"schema_version": 1, "rows": [row, row | {"length": 512}]})
    )
    assert shown(capsys, "--phases", tmp_path / "step.json")[0] == 0
    assert (tmp_path / "step_phases.png").exists() and (tmp_path / "step_phases.svg").exists()


def test_sweeps_are_found():
    assert doctest.testmod(sweep).failed == 0
    options = {
        f"{topk}-{nodes}": {"decoder": "d", "nodes": nodes, "topk": topk, "temperature": None}
        for nodes in (8, 64)
        for topk in (2, 4)
    }
    found = sweep.sweeps(
        options | {"x": {"decoder": "d", "nodes": "auto", "topk": 2, "temperature": None}}
    )
    assert set(found) == {"nodes", "topk"}
    assert found["nodes"] == {
        "d topk=2": [(8.0, "2-8"), (64.0, "2-64")],
        "d topk=4": [(8.0, "4-8"), (64.0, "4-64")],
    }
