"""The second pass over a finished run, by record_trees.py."""

import json
import shutil
from itertools import pairwise

import pytest
import record_trees

from bench.store.trees import read_trees
from bench.store.turn import read_turns
from tests.helpers.commands import basics, bench, script


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A run of two questions of two turns each."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [
        {"question_id": q, "category": "writing", "turns": [f"Say {q}.", "And again?"]}
        for q in (5, 6)
    ]
    (folder / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--decoder", "greedy,static,dynamic:nodes=16,hf-greedy", "--num-choices", 2]
    assert bench(*basics(model, folder / "two.jsonl", folder / "run"), *arguments) == 0
    return folder / "run"


@pytest.fixture
def run_folder(finished, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(finished, tmp_path / "run")


def test_recorded_trees_are_those_of_the_run(run_folder):
    before = (run_folder / "turns.jsonl").read_bytes()
    assert script(record_trees.main, run_folder, "--questions", "5") == 0
    assert (run_folder / "turns.jsonl").read_bytes() == before
    turns = {turn.key: turn for turn in read_turns(run_folder / "turns.jsonl")[0]}
    trees = read_trees(run_folder)
    drafting = ("static", "dynamic:nodes=16")
    assert trees.keys() == {key for key in turns if key[0] == 5 and key[1] in drafting}
    for key, answer in trees.items():
        turn, said = turns[key], []
        for step, accept, nodes in zip(answer.steps, turn.accept_lengths, turn.nodes, strict=True):
            assert len(step.token) == nodes and (step.log_prob is None) == (key[1] == "static")
            said += [step.token[node] for node in step.kept[:accept]]
            assert all(step.parent[b] == a for a, b in pairwise(step.kept))
        assert said == turn.token_ids
    assert '"5/1/0/1":' in (run_folder / "report.html").read_text(encoding="utf-8")

    assert script(record_trees.main, run_folder, "--questions", "6", "--decoder", "static") == 0
    assert trees.items() < read_trees(run_folder).items()


def test_an_answer_that_comes_out_otherwise_is_left_out(run_folder, capsys):
    rows = [json.loads(line) for line in (run_folder / "turns.jsonl").read_text().splitlines()]
    changed = next(
        row
        for row in rows
        if row["decoder"] == "static" and row["turn"] == 2 and row["choice"] == 0
    )
    changed["token_ids"][0] += 1
    (run_folder / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = str(changed["question_id"])
    assert script(record_trees.main, run_folder, "--questions", asked, "--decoder", "static") == 1
    assert f"not recorded: question {asked}, static, turn 2" in capsys.readouterr().err
    assert len(read_trees(run_folder)) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--questions", "7"], "does not ask question 7; it asks 5-6"),
        (["--questions", "x"], "does not ask question x; it asks 5-6"),
        (["--questions", "../x"], "question_id must be an integer, found '../x'"),
        (["--questions", "5", "--decoder", "dynamic"], "the run has no decoder 'dynamic'"),
        (["--questions", "5", "--decoder", "hf-greedy"], "drafts no tree that could be shown"),
    ],
)
def test_record_trees_says_what_is_wrong(arguments, says, run_folder, capsys):
    assert script(record_trees.main, run_folder, *arguments) == 2
    assert says in capsys.readouterr().err and not (run_folder / "trees.jsonl").exists()


def test_what_the_run_was_made_of_must_still_be_there(run_folder, capsys):
    run = json.loads((run_folder / "run.json").read_text())
    for part, name, says in (
        ("model", "identity", "no longer the model"),
        ("questions", "sha256", "have changed since"),
    ):
        changed = run | {part: run[part] | {name: "another"}}
        (run_folder / "run.json").write_text(json.dumps(changed))
        assert script(record_trees.main, run_folder, "--questions", "5", "--decoder", "static") == 2
        assert says in capsys.readouterr().err


def test_damaged_trees_are_not_added_to(run_folder, capsys):
    (run_folder / "trees.jsonl").write_text('{"question_id": 5}\n')
    assert script(record_trees.main, run_folder, "--questions", "5", "--decoder", "static") == 2
    error = capsys.readouterr().err
    assert "line 1 is not an answer's trees" in error and error.count("\n") == 1
