"""What identifies a question."""

import pytest

from bench.store.question_id import check_question_id, parse_question_id, ranges


@pytest.mark.parametrize("value", [81, -1, 0, "81_DE", "HumanEval/0", "q", "gsm8k:7", "Ü 1", "1e5"])
def test_integers_and_texts_identify_questions(value):
    assert check_question_id(value) == value == parse_question_id(str(value))


TEXTS = ("81", "-81", "007", "", " ", "a/../b", "../x", "/etc", "a\nb", "x" * 101, "<b>")


@pytest.mark.parametrize("value", [*TEXTS, 1.0, None, True, 10**20, ["81"]])
def test_nothing_else_does(value):
    """A text that is a number would be another question's key in run.json."""
    with pytest.raises(ValueError, match="question_id must be"):
        check_question_id(value)


def test_ids_are_listed_in_order():
    assert ranges({3, 1, 2, "b", "a", 9}) == "1-3, 9, a, b" and ranges([]) == ""
