"""The source of a run's folder: what is no part of the run is left out with a word."""

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.common.errors import UserError
from bench.reporting.run_source import open_run
from bench.store.trees import AnswerTrees, StepTree, write_trees
from bench.store.turn import Turn
from tests.helpers.runs import make_turn, run_json, turn_of, write_run

TURNS = [make_turn(question_id=number, turn=turn) for number in (1, 2) for turn in (1, 2)]


def written(folder: Path, turns: Sequence[Turn]) -> Path:
    """A run that asks TURNS, and holds these."""
    config = run_json(TURNS)["config"]
    asked = run_json(TURNS)["question_turns"]
    return write_run(folder, turns, config=config, question_turns=asked)


def test_a_run_that_holds_what_it_asks_is_whole(tmp_path):
    source = open_run(written(tmp_path / "run", TURNS))
    assert source.complete and not source.warnings and len(source.frame) == 4


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"choice": 3}, "question 1, dynamic, choice 3, turn 1"),
        ({"choice": -1}, "question 1, dynamic, choice -1, turn 1"),
        ({"turn": 5}, "question 1, dynamic, choice 0, turn 5"),
        ({"question_id": 9}, "question 9, dynamic, choice 0, turn 1"),
    ],
)
def test_turns_that_a_run_does_not_ask_are_in_no_number(changes, place, tmp_path):
    """They were pooled with the others."""
    strange = make_turn(accepts=[60], **changes)
    source = open_run(written(tmp_path / "run", [*TURNS, strange, replace(strange, seed=1)]))
    [again, warning] = source.warnings
    assert "has 1 finished turns more than once" in again
    assert warning.endswith(
        f"has 1 turns that this run does not ask, first {place}; they are left out"
    )
    assert len(source.frame) == len(source.turns) == 4 and source.complete
    with pytest.raises(UserError, match=r"has no finished turn; .* that this run does not ask"):
        open_run(written(tmp_path / "strange", [strange]))


def test_turns_at_another_temperature_are_in_no_number(tmp_path):
    turns = [*TURNS[:3], replace(TURNS[3], temperature=0.7)]
    source = open_run(written(tmp_path / "run", turns))
    assert "has 1 turns at another temperature than the run's 0.0" in source.warnings[0]
    assert source.warnings[0].endswith("turn 2 at 0.7; they are left out")
    assert len(source.frame) == 3 and not source.complete
    config = run_json(TURNS)["config"] | {"temperature": None}  # By category.
    assert not open_run(write_run(tmp_path / "run", turns, config=config)).warnings


SHARED = {"nodes": 16, "topk": 4, "depth": None, "tree": "mc_sim_7b_63"}


@pytest.mark.parametrize(
    ("decoder", "options"),
    [
        ("greedy", {}),
        ("prompt-lookup", {}),
        ("static", {"nodes": 16, "tree": "mc_sim_7b_63"}),
        ("dynamic", {"nodes": 16, "topk": 4}),
        ("dynamic:nodes=8", {"nodes": "8", "topk": 4}),
        ("plug-in:topk=2", {"nodes": 64, "topk": "2"}),  # The largest tree that was verified.
        ("measured", {"nodes": "auto"}),
    ],
)
def test_a_shared_option_is_of_the_decoders_that_have_it(decoder, options, tmp_path):
    """A sweep over --topk had a line of static, and --nodes auto made prompt-lookup follow it."""
    turns = [make_turn(decoder)]
    config = run_json(turns)["config"] | SHARED
    run = write_run(tmp_path / "run", turns, config=config, draft_times={"measured": {"2": 0.1}})
    found = open_run(run).options[decoder]
    own = {"decoder", "temperature", "acceptance"}
    assert {name: found[name] for name in found if name not in own} == options


def test_a_damaged_row_does_not_hide_the_others(tmp_path):
    run = written(tmp_path / "run", TURNS)
    first, second, *others = (run / "turns.jsonl").read_text().splitlines(keepends=True)
    damaged_row = second.replace('"seed": 0', '"seed": null')
    (run / "turns.jsonl").write_text("".join([first, damaged_row, *others]))
    source = open_run(run)
    damaged, missing = source.warnings
    assert "turns.jsonl, line 2 is not a turn of this version" in damaged
    assert missing.endswith("dynamic: 3 of 4 turns are finished; the others are in no number")
    (run / "turns.jsonl").write_text(damaged_row)
    with pytest.raises(UserError, match=r"has no finished turn; .*line 1 is not a turn"):
        open_run(run)


def test_a_published_run_is_read_as_it_lies_there(tmp_path):
    run = written(tmp_path / "run", TURNS)
    rows = run / "turns.jsonl"
    before = open_run(run)
    (run / "turns.jsonl.gz").write_bytes(gzip.compress(rows.read_bytes()))
    rows.unlink()
    assert open_run(run).turns == before.turns and open_run(run).warnings == ()
    (run / "turns.jsonl.gz").write_bytes(gzip.compress(b"x" * 9)[:-9])
    with pytest.raises(UserError, match=r"turns.jsonl.gz cannot be read"):
        open_run(run)


def test_trees_of_another_answer_are_left_out(tmp_path):
    """Old trees were shown beside new answers."""
    turns = [turn_of("dynamic", [5, 6, 7], [2, 1], question_id=number) for number in (1, 2)]
    run = write_run(tmp_path / "run", turns)
    last = StepTree([0], [7], None, [0])
    steps = [StepTree([0, 0], [5, 6], None, [0, 1]), last]
    others = [StepTree([0, 0], [5, 8], None, [0, 1]), last]
    text = {5: "a", 6: "b", 7: "c", 8: "d"}
    trees = {number: AnswerTrees(number, "dynamic", 0, 1, steps, text) for number in (1, 2, 3)}
    write_trees(run, [trees[1]])
    assert list(open_run(run).trees) == [trees[1].key] and not open_run(run).warnings
    write_trees(run, [trees[1], replace(trees[2], steps=others), trees[3]])
    source = open_run(run)
    [warning] = source.warnings
    assert list(source.trees) == [trees[1].key]
    assert "trees.jsonl has trees of 2 answers that are not this run's" in warning
    assert "first question 2, dynamic, choice 0, turn 1; they are left out" in warning
