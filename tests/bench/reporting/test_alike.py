"""Only what is alike is ranked, and what differs is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.reporting.comparison import Report
from bench.reporting.run_source import open_run
from tests.helpers.runs import ENVIRONMENT, random_turns, run_json, write_run

TURNS = random_turns(["greedy", "dynamic"])
TEXTS = {str(n): [f"Question {n}?", "And?"] for n in range(10)}
COMMIT = {"commit": "a" * 40, "dirty": False}


def report(tmp_path: Path, turns=TURNS, config=None, baseline="a/greedy", **changes) -> Report:
    """A report of two runs, a and b. config and changes: of the run.json of b."""
    base = run_json(TURNS)["config"] | {"template": "vicuna", "seed": 0, "load_in_4bit": False}
    base |= {"max_new_tokens": 512, "top_p": None, "step_times": None}
    model = {"name": "m", "identity": "x", "contents": "z", "prompt": "p", "tokenizer": "t"}
    facts = {"question_texts": TEXTS, "git": COMMIT, "model": model}
    facts["sessions"] = [{"git": COMMIT, "environment": ENVIRONMENT}]
    write_run(tmp_path / "a", TURNS, config=base, **facts)
    config = base | {"decoders": list(dict.fromkeys(t.decoder for t in turns))} | (config or {})
    write_run(tmp_path / "b", turns, config=config, **facts | changes)
    return Report.of([open_run(tmp_path / "a"), open_run(tmp_path / "b")], baseline)


def row_of(report: Report, label: str) -> dict:
    [row] = report.headline().cells[lambda cells: cells.decoder == label].to_dict("records")
    return row


def test_runs_that_are_alike_are_ranked(tmp_path):
    made = report(tmp_path)
    assert not made.warnings
    assert [line.split(":")[0] for line in made.verdicts()] == [
        "most tokens per inference",
        "most tokens per second",
    ]
    assert row_of(made, "b/dynamic")["wall-clock ratio"].endswith("faster")
    assert row_of(made, "b/greedy")["equal"] == "10/10"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"name": "m", "identity": "y"}}, "model files"),
        ({"model": {"name": "m", "identity": "x", "contents": "y"}}, "model contents"),
        ({"model": {"name": "m", "identity": "x", "prompt": "of another day"}}, "prompt"),
        ({"model": {"name": "other"}}, "model m, other"),
        ({"config": {"template": None}}, "template vicuna, the model's own"),
        ({"config": {"load_in_4bit": True}}, "load_in_4bit False, True"),
        ({"config": {"seed": 1}}, "seed 0, 1"),
        ({"config": {"temperature": None}}, "temperature 0.0, by category"),
        ({"config": {"max_new_tokens": 9}}, "max_new_tokens 512, 9"),
        ({"config": {"acceptance": "typical"}}, "acceptance lossless, typical"),
        ({"config": {"top_p": 0.9}}, "top_p none, 0.9"),
        ({"model": {"name": "m", "identity": "x", "tokenizer": "u"}}, "tokenizer"),
        ({"environment": ENVIRONMENT | {"dtype": "bfloat16"}}, "dtype float32, bfloat16"),
    ],
)
def test_what_is_unlike_is_said_and_neither_ranked_nor_equal(changes, said, tmp_path):
    made = report(tmp_path, **changes)
    [warning] = [each for each in made.warnings if "none is said to lead" in each]
    assert "these runs were set differently" in warning and said in warning
    assert made.verdicts() == []
    assert row_of(made, "b/dynamic")["wall-clock ratio"].endswith("not alike")
    assert row_of(made, "b/dynamic")["equal"] == "-"
    assert row_of(made, "a/dynamic")["wall-clock ratio"].endswith("faster")


def test_what_is_not_alike_is_neither_faster_nor_slower_anywhere(tmp_path):
    """Only the headline said so. Other tables and the figure showed the same ratios without it."""
    made = report(tmp_path, config={"seed": 1})
    mark = "not alike, and not ranked: b/greedy, b/dynamic"
    of_speed = ["By category", "By turn", "By question", "As Spec-Bench computes it"]
    tables = {table.title: table for table in made.tables()}
    assert [name for name, table in tables.items() if mark in table.caption] == of_speed
    [figure] = [each for each in made.draw(tmp_path / "f") if each.name == "wall_clock_ratio"]
    assert f"above 1 is faster; {mark} (bars" in figure.caption
    whole = Report.of([open_run(tmp_path / "a")])
    assert not any("not alike" in table.caption for table in whole.tables())
    mixed = [{"git": {"commit": letter * 40, "dirty": False}} for letter in "ab"]
    run = open_run(write_run(tmp_path / "mixed", TURNS, sessions=mixed))
    [figure] = [
        each for each in Report.of([run]).draw(tmp_path / "f") if each.name == "wall_clock_ratio"
    ]
    assert "ranked: dynamic (" in figure.caption and "above 1" not in figure.caption


@pytest.mark.parametrize(
    ("config", "is_ranked"),
    [
        ({}, True),
        ({"step_times_sha256": "e" * 64}, True),
        ({"temperature": 0.7, "step_times_sha256": "e" * 64}, True),
        ({"temperature": 0.7, "acceptance": "typical"}, True),
        ({"temperature": 0.7, "acceptance": "typical", "step_times_sha256": "e" * 64}, False),
        ({"temperature": 0.7, "acceptance": "typical", "step_times": None}, False),
        ({"step_times": None}, True),
    ],
)
def test_step_times_matter_only_where_tokens_depend_on_drafts(tmp_path, config, is_ranked):
    """The path of --step-times made two runs unlike that docs/running.md calls the same."""
    turns = [replace(turn, temperature=config.get("temperature", 0.0)) for turn in TURNS]
    times = {"step_times": "results/auto", "step_times_sha256": "d" * 64}
    base = run_json(turns)["config"] | config
    write_run(tmp_path / "b", turns, config=base | times, question_texts=TEXTS)
    again = times | {"step_times": "results/b/run.json"} | base
    if again["step_times"] is None:  # It measured them, and follows the clock.
        del again["step_times_sha256"]
    write_run(tmp_path / "c", turns, config=again, question_texts=TEXTS)
    made = Report.of([open_run(tmp_path / name) for name in "bc"])
    assert bool(made.verdicts()) == is_ranked
    assert ("step_times_sha256" in " ".join(made.warnings)) != is_ranked
    assert "results/" not in " ".join(made.warnings)


def test_of_sources_of_one_name_it_is_said_which_is_which(tmp_path):
    for name in ("old", "new"):
        write_run(tmp_path / name / "run", TURNS)
    write_run(tmp_path / "other", TURNS)
    folders = [tmp_path / name for name in ("old/run", "other", "new/run")]
    made = Report.of([open_run(folder) for folder in folders])
    assert made.warnings[0] == f"run is {folders[0]}; run (2) is {folders[2]}"
    assert not any(" is /" in each for each in Report.of(made.sources[:2]).warnings)


def test_a_setting_of_a_later_version_must_be_alike_too(tmp_path):
    assert report(tmp_path, config={"new": 1}).verdicts()  # An older run does not record it.
    base = run_json(TURNS)["config"] | {"new": 2}
    write_run(tmp_path / "c", TURNS, config=base)
    made = Report.of([open_run(tmp_path / "b"), open_run(tmp_path / "c")])
    assert made.verdicts() == [] and "new 1, 2" in made.warnings[0]


def test_other_questions_under_the_same_numbers_are_not_compared(tmp_path):
    """Greedy on one set was "1.81x faster" than greedy on another one."""
    made = report(tmp_path, question_texts=TEXTS | {"3": ["Another?", "And?"]})
    assert "ask other questions under the same numbers" in made.warnings[0]
    assert made.baselines["b/dynamic"] is None and made.baselines["a/dynamic"] == "a/greedy"
    assert row_of(made, "b/dynamic")["wall-clock ratio"] == "-" and made.verdicts() == []


def test_questions_at_other_temperatures_are_not_compared(tmp_path):
    """A category decides the temperature. Another file may put a question into another one."""
    is_writing = {"category": "writing", "temperature": 0.7}
    warmer = [replace(turn, **is_writing) if turn.question_id == 3 else turn for turn in TURNS]
    config = run_json(TURNS)["config"] | {"temperature": None}
    for name, turns in (("a", TURNS), ("b", warmer)):
        write_run(tmp_path / name, turns, config=config, question_texts=TEXTS)
    made = Report.of([open_run(tmp_path / name) for name in "ab"], "a/greedy")
    [warning] = made.warnings
    assert "at different temperatures, as these are in different categories (question 3, ...)" in (
        warning
    )
    assert made.verdicts() == [] and row_of(made, "b/greedy")["equal"] == "-"


def test_a_model_on_several_gpus_is_not_ranked_by_speed(tmp_path):
    made = report(tmp_path, config={"device": "balanced", "gpus": 4})
    [warning] = made.warnings
    assert "times do not compare" in warning
    assert "gpus: None in a, 4 in b" in warning and "several GPUs in b" in warning
    [verdict] = made.verdicts()
    assert verdict.startswith("most tokens per inference")


def test_a_baseline_is_the_label_of_that_name_in_each_run(tmp_path):
    """The first decoder of the same class was taken in its place."""
    turns = random_turns(["greedy", "dynamic:nodes=16", "dynamic"])
    for name in "ab":
        write_run(tmp_path / name, turns)
    sources = [open_run(tmp_path / name) for name in "ab"]
    made = Report.of(sources, "dynamic")
    assert set(made.baselines.values()) == {"a/dynamic", "b/dynamic"}
    assert set(Report.of(sources, "greedy").baselines.values()) == {"a/greedy", "b/greedy"}
    without = [write_run(tmp_path / name, turns[:1] + turns[2:3]) for name in "cd"]
    made = Report.of([open_run(folder) for folder in without], "dynamic")
    assert "c/dynamic:nodes=16" in made.baselines.values()


def test_the_same_questions_from_another_file_are_compared(tmp_path):
    made = report(tmp_path, questions={"name": "other order", "sha256": "2"})
    assert not made.warnings and made.verdicts()


def test_older_runs_without_texts_are_told_by_their_files(tmp_path):
    for name, digest in (("a", "1"), ("b", "2"), ("c", "2")):
        write_run(tmp_path / name, TURNS, questions={"name": "sample", "sha256": digest})
    a, b, c = (open_run(tmp_path / name) for name in "abc")
    assert "ask other questions" in Report.of([a, b]).warnings[0]
    assert not Report.of([b, c]).warnings


def test_other_code_is_said_and_other_machines_are_not_ranked_by_speed(tmp_path):
    other = {"commit": "b" * 40, "dirty": True}
    made = report(tmp_path, sessions=[{"git": other}])
    assert "a: commit aaaaaaaaa; b: commit bbbbbbbbb with changes" in made.warnings[0]
    assert len(made.verdicts()) == 2
    made = report(tmp_path, environment=ENVIRONMENT | {"torch": "2.10"})
    assert "times do not compare" in made.warnings[0]
    [verdict] = made.verdicts()
    assert verdict.startswith("most tokens per inference")
    assert row_of(made, "b/dynamic")["wall-clock ratio"].endswith("not alike")
    assert row_of(made, "b/greedy")["equal"] == "10/10"


def test_a_run_that_went_on_with_other_code_is_not_ranked(tmp_path):
    """Its old and its new steps are pooled."""
    sessions = [{"git": COMMIT}, {"git": COMMIT}, {"git": {"commit": "b" * 40, "dirty": False}}]
    run = write_run(tmp_path / "run", TURNS, sessions=sessions)
    made = Report.of([open_run(run)])
    [warning] = made.warnings
    assert "ran different code (commit aaaaaaaaa, then commit bbbbbbbbb)" in warning
    assert made.verdicts() == []
    assert row_of(made, "dynamic")["wall-clock ratio"].endswith("not alike")
    run = write_run(tmp_path / "run", TURNS, sessions=sessions[:2])
    assert not Report.of([open_run(run)]).warnings


def test_a_part_of_a_run_is_ranked_on_the_turns_that_all_have(tmp_path):
    """A partial run led with 2.133 tokens per inference, "0.91x" those of a whole one."""
    part = [turn for turn in TURNS if turn.question_id == 3 or turn.decoder == "greedy"]
    made = report(tmp_path, turns=part, end=None)
    verdicts = made.verdicts()
    assert all(line.endswith("; on the 2 turns that all of them finished") for line in verdicts)
    assert all("too few questions for an interval" in line for line in verdicts)
    apart = [turn for turn in TURNS if turn.question_id < 5]
    others = [turn for turn in TURNS if turn.question_id >= 5]
    write_run(tmp_path / "a", apart)
    write_run(tmp_path / "b", others)
    made = Report.of([open_run(tmp_path / "a"), open_run(tmp_path / "b")])
    assert all("no turn is finished by all of them" in line for line in made.verdicts())


def test_markdown_says_first_what_differs(tmp_path, capsys):
    made = report(tmp_path, config={"seed": 1})
    made.show("markdown")
    assert capsys.readouterr().out.startswith("- these runs were set differently")
    made.show("latex")
    assert capsys.readouterr().out.startswith("% these runs were set differently")
