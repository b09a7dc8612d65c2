"""Counts that do not fit together are left out with a word."""

import json
from pathlib import Path

import pytest

from bench.common.errors import UserError
from bench.reporting.sources import NoNumbers, open_answers, open_run
from tests.helpers.runs import make_turn, write_run


def answers(path: Path, *choices: dict) -> Path:
    """An answer file with one question for each of these choices."""
    rows = [
        {
            "question_id": number,
            "category": "math",
            "model_id": "m",
            "choices": [{"index": 0} | own],
        }
        for number, own in enumerate(choices, start=1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def choice(tokens: list[int], steps: list[int], **more: object) -> dict:
    counts = {"new_tokens": tokens, "decoding_steps": steps}
    return {"turns": ["Yes."] * len(tokens), "wall_time": [1.0] * len(tokens)} | counts | more


GOOD = choice([6, 4], [3, 2], accept_lengths=[2, 2, 2, 2, 2])


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (choice([0, 4], [3, 2]), "first m, question 2, turn 1: 0 tokens for a text"),
        (choice([6, 4], [3, 0]), "first m, question 2, turn 2: 4 tokens in 0 steps"),
        (choice([6, 4], [3, 9]), "first m, question 2, turn 2: 9 steps for 4 tokens"),
    ],
)
def test_impossible_counts_are_in_no_number(wrong, reason, tmp_path):
    source = open_answers(answers(tmp_path / "m.jsonl", GOOD, wrong))
    assert len(source.frame) == 3
    [warning] = source.warnings
    assert "1 of 4 turns have impossible counts" in warning and reason in warning
    with pytest.raises(UserError, match="impossible counts") as raised:
        open_answers(answers(tmp_path / "all.jsonl", choice([0], [1])))
    assert not isinstance(raised.value, NoNumbers)  # It is no file of texts alone.


@pytest.mark.parametrize(
    ("tokens", "lengths", "reason"),
    [
        (6, [1] * 5, "turn 1: they add up to 3, and its tokens are 6"),
        (4, [2, 2, 4, 2, 2], "turn 1: they add up to 8, and its tokens are 4"),
        (6, [3, 3, 0, 2, 2], "turn 1: a step that committed 0 tokens"),
        (6, [8, 2, -4, 2, 2], "turn 1: a step that committed -4 tokens"),
    ],
)
def test_accept_lengths_that_do_not_add_up_are_left_out(tokens, lengths, reason, tmp_path):
    """One table said 2.000 tokens per inference, another one 1.000."""
    cut = choice([6, 4], [3, 2], accept_lengths=[2, 2, 3, 2, 2])  # The answer ends inside a step.
    wrong = choice([tokens, 4], [3, 2], accept_lengths=lengths)
    source = open_answers(answers(tmp_path / "m.jsonl", GOOD, cut, wrong))
    assert source.frame.accept_lengths.isna().tolist() == [False] * 4 + [True] * 2
    [warning] = source.warnings
    assert "the accept lengths of 1 answers do not fit" in warning and reason in warning
    assert [turn.accept_lengths for turn in source.turns[-2:]] == [[], []]


def test_a_turn_that_is_missing_is_said(tmp_path):
    asked = [{"question_id": n, "category": "math", "turns": ["a", "b"]} for n in (1, 2)]
    questions = tmp_path / "asked.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
    file = answers(tmp_path / "m.jsonl", GOOD, choice([6], [3]))
    source = open_answers(file, str(questions))
    assert source.asked == {1: 2, 2: 2} and not source.complete
    assert "1 answers lack a turn, first question 2, turn 2" in " ".join(source.warnings)
    assert open_answers(file).asked == {1: 2, 2: 1}


def test_a_run_has_no_text_without_tokens(tmp_path):
    empty = make_turn("greedy", [], 0.0, question_id=2, text="Yes.")
    source = open_run(write_run(tmp_path / "run", [make_turn("greedy"), empty]))
    assert source.frame.question_id.tolist() == [1]
    assert any("question 2, turn 1: 0 tokens for a text" in each for each in source.warnings)


@pytest.mark.parametrize("lengths", [[2.0] * 5, [2] * 4, [[2, 2], [2, 2]], "22222", [None] * 5])
def test_accept_lengths_that_are_not_one_a_step_are_told(lengths, tmp_path):
    """They were left out without a word."""
    wrong = choice([6, 4], [3, 2], accept_lengths=lengths)
    source = open_answers(answers(tmp_path / "m.jsonl", GOOD, wrong))
    [warning] = source.warnings
    assert "of 1 answers do not fit their counts, first question 2, with another" in warning


@pytest.mark.parametrize(("tokens", "text"), [(500, "Yes, it is."), (2, "Yes. " * 200), (200, "")])
def test_tokens_that_hardly_fit_their_text_are_told(tokens, text, tmp_path):
    """As where padding is counted. They stay in all numbers."""
    odd = choice([6, tokens], [3, 2], turns=["Yes.", text])
    source = open_answers(answers(tmp_path / "m.jsonl", GOOD, odd))
    [warning] = source.warnings
    assert (
        f"the tokens of 1 turns hardly fit their texts, first question 2, turn 2: {tokens} t"
        in warning
    )
    assert len(source.frame) == 4


@pytest.mark.parametrize("seconds", [0.0, 1e-320, 1e-9])
def test_times_of_0_s_are_unknown(tmp_path, seconds):
    """Ratios were infinite, with pages of warnings by numpy."""
    odd = choice([6, 4], [3, 2], wall_time=[1.0, seconds])
    source = open_answers(answers(tmp_path / "m.jsonl", GOOD, odd))
    [warning] = source.warnings
    assert "1 answers have turns of less than a microsecond, first question 2" in warning
    assert list(source.frame.wall_s.isna()) == [False, False, False, True]


def test_answers_of_several_models_in_one_file_are_told(tmp_path):
    path = answers(tmp_path / "both.jsonl", GOOD, GOOD)
    path.write_text(path.read_text().replace('"m"', '"other"', 1))
    source = open_answers(path)
    assert "holds answers of 2 models (m, other); its numbers pool them" in source.warnings[0]
