"""Decoding a finished run's answers again."""

import json

from bench.running.replay import reopen, replay
from bench.store.run_record import read_run
from bench.store.turn import read_turns
from tests.helpers.commands import basics, bench

AUTO = ("dynamic:nodes=auto", "conditional:nodes=auto")


def test_the_trees_of_auto_are_those_of_the_budgets_that_the_run_had(model, questions, tmp_path):
    folder = tmp_path / "auto"
    assert bench(*basics(model, questions, folder), "--decoder", ",".join(AUTO)) == 0
    runner, by_id = reopen(read_run(folder))
    turns = {turn.key: turn for turn in read_turns(folder / "turns.jsonl")[0]}
    assert len(turns) == 10
    for turn in turns.values():
        before = [turns[(*turn.key[:3], number)].text for number in range(1, turn.turn)]
        trees = replay(runner, by_id[turn.question_id], turn, before)
        assert [len(tree.token) for tree in trees.steps] == turn.nodes


def test_a_reopened_run_measures_no_times(model, questions, tmp_path):
    folder = tmp_path / "auto"
    few = ["--decoder", ",".join(AUTO), "--limit", 1, "--max-new-tokens", 4]
    assert bench(*basics(model, questions, folder), *few) == 0
    path = folder / "run.json"
    run = json.loads(path.read_text())
    rows = run["step_times"]["seconds"]
    # As on a quick machine.
    run["step_times"]["seconds"] = [[1.0 + 0.001 * at for at in range(len(row))] for row in rows]
    run["draft_times"] = {
        spec: dict.fromkeys(each, 0.001) for spec, each in run["draft_times"].items()
    }
    path.write_text(json.dumps(run))
    runner, _ = reopen(read_run(folder))
    assert list(runner.decoders) == list(AUTO)
    for spec, decoder in runner.decoders.items():
        assert [list(row) for row in decoder.budget.times.seconds] == run["step_times"]["seconds"]
        assert list(decoder.budget.draft_s.values()) == list(run["draft_times"][spec].values())
