"""What drafting costs, put beside the runs that it is about, and beside no others."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.reporting.comparison import Report
from bench.reporting.run_source import open_run
from bench.store.step_profile import PHASES, StepTable
from tests.helpers.runs import random_turns, run_json, write_run

TURNS = random_turns(["greedy", "static", "dynamic"])  # Of 64 nodes, but greedy.


def steps_of(**nodes: int) -> StepTable:
    """Made-up times of the steps of decoders with so many nodes."""
    seconds = {f"{phase}_s": 0.001 for phase in PHASES}
    counts = {"length": 128, "operations": 1, "synchronisations": 1}
    rows = [
        {"decoder": name, "nodes": count, **counts, **seconds}
        for name, count in {"greedy": 1, **nodes}.items()
    ]
    return StepTable(Path("step.json"), rows, {})


def report(folder: Path, steps: StepTable, **config) -> Report:
    write_run(folder, TURNS, config=run_json(TURNS)["config"] | config)
    return Report.of([open_run(folder)], steps=steps)


def test_steps_of_the_same_trees_are_put_beside_a_run(tmp_path):
    made = report(tmp_path / "run", steps_of(static=64, dynamic=64))
    assert list(made.drafting_rows.decoder) == ["greedy", "static", "dynamic"]
    assert not made.warnings and "Drafting" in [table.title for table in made.tables()]


def test_the_ratio_beside_drafting_is_of_whole_turns(tmp_path):
    made = report(tmp_path / "run", steps_of(static=64, dynamic=64))
    [table] = [each for each in made.tables() if each.title == "Drafting"]
    ratios = made.summary.wall_clock_ratio_with_prefill
    assert table.cells["wall-clock ratio"].tolist() == [f"{ratio:.2f}x" for ratio in ratios]
    assert f"{ratios[2]:.2f}" != f"{made.summary.wall_clock_ratio[2]:.2f}"


@pytest.mark.parametrize(("given", "words"), [({}, "64 nodes"), ({"nodes": "auto"}, "nodes=auto")])
def test_steps_of_other_trees_are_not(tmp_path, given, words):
    """A label is the same where --nodes was given for all decoders."""
    made = report(tmp_path / "run", steps_of(static=16, dynamic=16), **given)
    assert list(made.drafting_rows.decoder) == ["greedy"]
    assert len(made.warnings) == 2
    assert f"static in step.json are of 16 nodes, and those of run of {words}" in made.warnings[0]


def test_steps_of_trees_that_vary_with_the_text_are_not(tmp_path):
    """They are timed on random text, where such a tree is small."""
    turns = [
        replace(turn, nodes=[60, *turn.nodes[1:]]) if turn.decoder == "static" else turn
        for turn in TURNS
    ]
    write_run(tmp_path / "run", turns)
    made = Report.of([open_run(tmp_path / "run")], steps=steps_of(static=64, dynamic=64))
    assert list(made.drafting_rows.decoder) == ["greedy", "dynamic"]
    [warning] = made.warnings
    assert "static in step.json are of 64 nodes, and those of run of 60 to 64 nodes" in warning


def test_steps_of_other_decoders_are_told(tmp_path):
    """The report had no table of drafting then, and no word about it."""
    made = report(tmp_path / "run", steps_of(hydra=64))
    [warning] = made.warnings
    assert warning == "step.json has no steps of dynamic, static, of run, but of hydra"
