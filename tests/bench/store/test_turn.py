"""turns.jsonl: read row by row, and refused where a row is no turn."""

import json
import math
from dataclasses import asdict

import pytest

from bench.common.errors import UserError
from bench.store.turn import read_turns, turns_file
from tests.helpers.runs import make_turn

ROW = asdict(make_turn(step_ends=[2, 3]))


def write(path, *rows: dict, end: str = "") -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)


def test_a_row_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "turns.jsonl"
    assert read_turns(file) == ([], [])
    failed = make_turn(accepts=[], finish_reason="error", error="boom", choice=1)
    turns = [make_turn(step_ends=[2, 3]), failed, make_turn(seconds=2, text="漢\n", turn=2)]
    write(file, *map(asdict, turns))
    assert read_turns(file) == (turns, [])


def test_the_last_row_of_a_turn_counts(tmp_path):
    write(tmp_path / "turns.jsonl", ROW | {"text": "first"}, ROW | {"text": "last"})
    [turn], _ = read_turns(tmp_path / "turns.jsonl")
    assert turn.text == "last"


def test_a_finished_turn_that_is_there_again_is_told(tmp_path):
    """The last row counted without a word. A failed turn that was tried again is none."""
    failed = ROW | asdict(make_turn(accepts=[], turn=2, finish_reason="error", error="boom"))
    file = tmp_path / "turns.jsonl"
    write(file, ROW, failed, failed, ROW | {"turn": 2})
    assert read_turns(file)[1] == []
    write(file, ROW, ROW | {"turn": 2}, ROW, ROW)
    turns, [warning] = read_turns(file)
    assert len(turns) == 2
    assert warning == (
        f"{file} has 1 finished turns more than once, first question 1, dynamic, choice 0, turn 1; "
        "the last row of each counts"
    )


def test_damaged_lines_can_be_left_out_with_a_word(tmp_path):
    """One of them hid a whole run from its report."""
    file = tmp_path / "turns.jsonl"
    damaged = [ROW | {"seed": None}] * 4
    write(file, ROW, *damaged, ROW | {"turn": 2}, end="{")
    turns, warnings = read_turns(file, leave_out_damaged=True)
    assert [turn.turn for turn in turns] == [1, 2]
    assert warnings[0] == f"{file}, line 7 is torn and left out"
    assert warnings[1].startswith(f"{file}, line 2 is not a turn of this version (seed is None")
    assert warnings[1].endswith("; it is left out")
    assert warnings[4:] == [f"{file}: 1 more lines are left out"]


def test_published_turns_are_those_of_a_folder_without_others(tmp_path):
    assert turns_file(tmp_path).name == "turns.jsonl"
    (tmp_path / "turns.jsonl.gz").touch()
    assert turns_file(tmp_path).name == "turns.jsonl.gz"
    (tmp_path / "turns.jsonl").touch()
    assert turns_file(tmp_path).name == "turns.jsonl"


def test_rows_of_other_versions_are_read(tmp_path):
    """Older rows have no step_ends; newer ones may have fields that are not known here."""
    older = {name: value for name, value in ROW.items() if name != "step_ends"}
    write(tmp_path / "turns.jsonl", older, ROW | {"turn": 2, "watts": 300})
    turns, _ = read_turns(tmp_path / "turns.jsonl")
    assert [turn.step_ends for turn in turns] == [[], [2, 3]]


def test_a_time_may_be_nan(tmp_path):
    (tmp_path / "turns.jsonl").write_text(json.dumps(ROW | {"decode_s": math.nan}) + "\n")
    [turn], _ = read_turns(tmp_path / "turns.jsonl")
    assert math.isnan(turn.decode_s)


def test_a_torn_end_is_left_out_with_a_warning(tmp_path):
    file = tmp_path / "turns.jsonl"
    write(file, ROW, end='{"question_id": 3, "deco')
    turns, [warning] = read_turns(file)
    assert len(turns) == 1 and warning == f"{file}, line 2 is torn and left out"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"prefill_s": ...}, "it has no 'prefill_s'"),
        ({"text": None}, "text is None, expected a valid string"),
        ({"question_id": "1"}, "question_id must be an integer, found '1'"),
        ({"question_id": True}, "question_id must be an integer, found True"),
        ({"seed": 1 << 63}, "seed is 9223372036854775808, expected less than 9223372036854775808"),
        ({"token_ids": "aaaa"}, "token_ids is 'aaaa', expected a valid list"),
        ({"token_ids": [0, 1, 2.0, 3]}, "token_ids[2] is 2.0, expected a valid integer"),
        ({"decode_s": "x"}, "decode_s is 'x', expected a valid number"),
        ({"decode_s": -1.0}, "a time is below 0"),
        ({"temperature": 1e300}, "a temperature or time is out of its range"),
        ({"category": ""}, "category is '', expected it to have at least 1 character"),
        ({"category": "x" * 101}, "expected it to have at most 100 characters"),
        ({"nodes": [0, 1]}, "nodes[0] is 0, expected greater than or equal to 1"),
        ({"nodes": [1 << 31, 1]}, "nodes[0] is 2147483648, expected less than 2147483648"),
        ({"nodes": [1]}, "accept_lengths do not add up to the tokens"),
        ({"accept_lengths": [1]}, "accept_lengths do not add up to the tokens"),
        ({"nodes": [2, 64]}, "a step committed more tokens than it verified nodes"),
        ({"accept_lengths": [4, 0]}, "accept_lengths[1] is 0"),
        ({"step_ends": [1]}, "step_ends are not one for each step"),
        ({"finish_reason": "done"}, "finish_reason is 'done'"),
        ({"finish_reason": "error", "error": "x"}, "a turn that failed has tokens"),
    ],
)
def test_a_damaged_row_is_one_line(damage, message, tmp_path):
    file = tmp_path / "turns.jsonl"
    row = {name: value for name, value in (ROW | damage).items() if value is not ...}
    write(file, ROW, row)
    with pytest.raises(UserError) as caught:
        read_turns(file)
    said = str(caught.value)
    assert said.startswith(f"{file}, line 2 is not a turn of this version (") and message in said
    assert said.endswith("); repair or remove the line") and "\n" not in said and len(said) < 400


@pytest.mark.parametrize("line", ["[]", "3", "{", '{"text": Infinity}'])
def test_a_line_that_is_no_row_is_refused(line, tmp_path):
    (tmp_path / "turns.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="line 1 is not a turn of this version"):
        read_turns(tmp_path / "turns.jsonl")
