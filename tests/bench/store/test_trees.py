"""trees.jsonl: written, read, and refused where it is damaged."""

import json

import pytest

from bench.common.errors import UserError
from bench.reporting.comparison import derive
from bench.store.trees import AnswerTrees, StepTree, read_trees, write_trees
from tests.helpers.runs import random_turns, turn_of, write_run


def test_trees_are_read_as_they_were_written(tmp_path):
    assert read_trees(tmp_path) == {}
    tree = StepTree([0, 0, 1], [5, 6, 5], [0.0, -0.5, -1.5], [0, 1])
    bare = StepTree([0], [7], None, [0])
    answer = AnswerTrees(1, "dynamic", 0, 2, [tree, bare], {5: "a", 6: "␣b", 7: "漢"})
    write_trees(tmp_path, [answer])
    assert read_trees(tmp_path) == {(1, "dynamic", 0, 2): answer}


@pytest.mark.parametrize(
    ("tokens", "accepts", "fits"),
    [
        ([5, 6, 7], [2, 1], True),
        ([5, 6, 7, 9], [2, 2], True),  # Nothing is cut.
        ([5, 6, 8], [2, 1], False),
        ([5, 6, 7], [1, 2], False),
        ([5, 6], [2], False),
        ([5, 6, 7, 9, 1], [2, 3], False),
    ],
)
def test_trees_are_those_of_a_turn_with_their_tokens(tokens, accepts, fits):
    """The last step kept two tokens, of which a turn may have had room for one."""
    first = StepTree([0, 0, 0], [5, 4, 6], None, [0, 2])
    last = StepTree([0, 0], [7, 9], None, [0, 1])
    answer = AnswerTrees(1, "dynamic", 0, 1, [first, last], {})
    assert answer.are_of(turn_of("dynamic", tokens, accepts)) == fits


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.pop("steps"),
        lambda row: row["steps"][0]["parent"].__setitem__(1, 9),
        lambda row: row["steps"][0]["kept"].append(99),
        lambda row: row["steps"][0]["token"].pop(),
        lambda row: row["text"].clear(),
        lambda row: row.update(text=[]),
        lambda row: row.update(question_id=[]),
        lambda row: row["steps"][0].update(log_prob=["0", 1.0]),
        lambda row: row["steps"][0].update(kept=["0"]),
    ],
)
def test_damaged_trees_are_one_line_and_do_not_keep_a_run_from_its_report(damage, tmp_path, capsys):
    run = write_run(tmp_path / "run", random_turns(["greedy", "static"], questions=1, steps=4))
    row = {
        "question_id": 1,
        "decoder": "static",
        "choice": 0,
        "turn": 1,
        "text": {"1": "a"},
        "steps": [{"parent": [0, 0], "token": [1, 1], "log_prob": None, "kept": [0]}],
    }
    (run / "trees.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_trees(run)) == 1
    damage(row)
    (run / "trees.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="line 1 is not an answer's trees") as caught:
        read_trees(run)
    assert "\n" not in str(caught.value)
    derive(run)
    assert "the report is without trees" in capsys.readouterr().err
    assert (run / "report.html").exists()
