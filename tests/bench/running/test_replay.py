"""Decoding a finished run's answers again."""

import json
from dataclasses import replace
from itertools import count
from operator import le

import pytest

from bench.common.errors import UserError
from bench.running.replay import reopen, replay
from bench.running.step_times import AutoTimes
from bench.store.run_record import read_run
from bench.store.turn import read_turns
from decoders.budget import LADDER
from decoders.step_costs import StepTimes
from tests.helpers.commands import basics, bench
from tests.helpers.steps import FREE

AUTO = ("dynamic:nodes=auto", "conditional:nodes=auto")
DEPTHS = {  # Seconds of drafting: none.
    "dynamic:nodes=auto": dict.fromkeys((2, 3, 4), 0.0),
    "conditional:nodes=auto": dict.fromkeys((2, 3, 4, 5, 6), 0.0),
}


@pytest.mark.parametrize("is_recorded", [True, False])
def test_the_trees_of_auto_are_those_that_the_run_verified(is_recorded, model, questions, tmp_path):
    """Budgets followed a clock. Runs with workers have not even recorded what they began with."""
    folder = tmp_path / "auto"
    assert bench(*basics(model, questions, folder), "--decoder", ",".join(AUTO)) == 0
    if not is_recorded:
        change(folder, step_times=None, draft_times=None)
    runner, by_id = reopen(read_run(folder))
    turns = {turn.key: turn for turn in read_turns(folder / "turns.jsonl")[0]}
    assert len(turns) == 10
    for turn in turns.values():
        before = [turns[(*turn.key[:3], number)].text for number in range(1, turn.turn)]
        trees = replay(runner, by_id[turn.question_id], turn, before)
        assert [len(tree.token) for tree in trees.steps] == turn.nodes


def test_large_trees_come_out_again_whatever_a_clock_would_say(
    model, questions, tmp_path, monkeypatch
):
    """As on a machine where nodes cost nothing."""
    pretend(monkeypatch, AutoTimes(StepTimes((64,), LADDER, (FREE,)), DEPTHS))
    folder = tmp_path / "auto"
    assert bench(*basics(model, questions, folder), "--decoder", ",".join(AUTO)) == 0
    turns = read_turns(folder / "turns.jsonl")[0]
    assert max(max(turn.nodes) for turn in turns) > 16
    assert {max(turn.draft_depths) for turn in turns} == {4, 6}
    change(folder, step_times=None, draft_times=None)
    runner, by_id = reopen(read_run(folder))
    for turn in (turn for turn in turns if turn.turn == 1):
        trees = replay(runner, by_id[turn.question_id], turn, [])
        assert [len(tree.token) for tree in trees.steps] == turn.nodes


def pretend(monkeypatch, times: AutoTimes) -> None:
    """A machine with these times, where each step then takes a second."""
    seconds = count()
    monkeypatch.setattr("bench.running.runner.measured_times", lambda model: times)
    monkeypatch.setattr("bench.running.turn_generator.host_now", lambda: float(next(seconds)))


def change(folder, **fields) -> None:
    """Change a run.json."""
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_an_answer_that_comes_out_otherwise_is_left_out(model, questions, tmp_path):
    folder = tmp_path / "auto"
    few = ["--decoder", AUTO[0], "--limit", 1]
    assert bench(*basics(model, questions, folder), *few) == 0
    runner, by_id = reopen(read_run(folder))
    turn = read_turns(folder / "turns.jsonl")[0][0]
    other = replace(turn, token_ids=[*turn.token_ids[:-1], 5])
    assert replay(runner, by_id[turn.question_id], other, []) is None
    shorter = replace(turn, nodes=turn.nodes[:3])
    assert replay(runner, by_id[turn.question_id], shorter, []) is None
    older = replace(turn, draft_depths=[])
    assert replay(runner, by_id[turn.question_id], older, []) is None


def test_drafts_of_any_depth_come_out_again(model, questions, tmp_path, monkeypatch):
    """Deep drafts take long here, so most are shallow. The times are then not recorded."""
    dear = {spec: {depth: 0.2 * depth for depth in depths} for spec, depths in DEPTHS.items()}
    pretend(monkeypatch, AutoTimes(StepTimes((64,), LADDER, (FREE,)), dear))
    folder = tmp_path / "auto"
    assert bench(*basics(model, questions, folder), "--decoder", ",".join(AUTO)) == 0
    turns = read_turns(folder / "turns.jsonl")[0]
    assert len({depth for turn in turns for depth in turn.draft_depths}) > 2
    change(folder, step_times=None, draft_times=None)
    runner, by_id = reopen(read_run(folder))
    for turn in (turn for turn in turns if turn.turn == 1):
        trees = replay(runner, by_id[turn.question_id], turn, [])
        assert [len(tree.token) for tree in trees.steps] == turn.nodes
        deepest = [max(_depths(tree.parent)) for tree in trees.steps]
        assert all(map(le, deepest, turn.draft_depths))


def _depths(parent: list[int]) -> list[int]:
    """The depth of each node. Parents stand before their children; the root's is -1."""
    depths = [0]
    for node in parent[1:]:
        depths.append(depths[node] + 1)
    return depths


def test_a_reopened_run_measures_no_times(model, questions, tmp_path, monkeypatch):
    folder = tmp_path / "auto"
    few = ["--decoder", ",".join(AUTO), "--limit", 1, "--max-new-tokens", 4]
    assert bench(*basics(model, questions, folder), *few) == 0
    monkeypatch.setattr("bench.running.runner.measured_times", None)
    monkeypatch.setattr("bench.running.decoders.draft_times", None)
    runner, _ = reopen(read_run(folder))
    assert list(runner.decoders) == list(AUTO)


def test_a_strangers_run_executes_no_code_of_its_model(model, questions, tmp_path):
    """Its own run.json said that this code can be trusted."""
    folder = tmp_path / "run"
    few = ["--decoder", "dynamic:nodes=9", "--limit", 1, "--max-new-tokens", 4]
    assert bench(*basics(model, questions, folder), *few) == 0
    config = json.loads((folder / "run.json").read_text())["config"]
    change(folder, config=config | {"trust_remote_code": True})
    with pytest.raises(UserError, match="was made with --trust-remote-code; look at the model's"):
        reopen(read_run(folder))
    runner, _ = reopen(read_run(folder), trust_remote_code=True)
    assert runner.config.trust_remote_code


def test_damaged_times_are_told(model, questions, tmp_path):
    folder = tmp_path / "auto"
    few = ["--decoder", AUTO[0], "--limit", 1, "--max-new-tokens", 4]
    assert bench(*basics(model, questions, folder), *few) == 0
    change(folder, step_times={"lengths": [1], "sizes": [2], "seconds": [[0.1]]})
    with pytest.raises(UserError, match="the run's step times are damaged: its sizes begin with 2"):
        reopen(read_run(folder))
