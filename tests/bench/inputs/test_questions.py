"""Question sets: the sample, the real MT-Bench, and files that are not in the format."""

import json
from collections import Counter

import pytest

from bench.common.errors import UserError
from bench.inputs.questions import load_questions


def test_the_sample_set():
    questions = load_questions("sample").questions
    assert len(questions) == 24 and {len(q.turns) for q in questions} == {2}
    assert set(Counter(q.category for q in questions).values()) == {3}
    categories = "writing roleplay reasoning math coding extraction stem humanities"
    assert list(dict.fromkeys(q.category for q in questions)) == categories.split()
    with_reference = {q.category for q in questions if q.reference}
    assert with_reference == {"reasoning", "math", "coding"}
    assert all(len(q.reference) == 2 for q in questions if q.category in with_reference)


def test_the_sample_set_is_our_own(mt_bench):
    def runs(text: str, words: int = 7) -> set[tuple[str, ...]]:
        """All sequences of so many words in a text."""
        split = "".join(c.lower() if c.isalnum() else " " for c in text).split()
        return {tuple(split[i : i + words]) for i in range(len(split) - words + 1)}

    theirs = load_questions(str(mt_bench / "question.jsonl")).questions
    known = set().union(*(runs(text) for q in theirs for text in (*q.turns, *q.reference)))
    for question in load_questions("sample").questions:
        ours = runs(" ".join((*question.turns, *question.reference)))
        assert not ours & known, question.question_id


def test_the_real_set_is_read(mt_bench):
    read = load_questions(str(mt_bench / "question.jsonl"))
    assert [q.question_id for q in read.questions] == list(range(81, 161))
    assert read.sha256.startswith("119565adbab82227")
    assert len(load_questions(str(mt_bench / "question.jsonl"), limit=3).questions) == 3


GOOD = {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And doubled?"]}


@pytest.mark.parametrize(
    ("second_line", "says"),
    [
        ("{", "line 2 is not JSON: .*; expected one object a line"),
        ("[1]", "line 2: expected one object a line, found a list"),
        (json.dumps(GOOD), "line 2: question_id 1 stands in line 1 already"),
        (
            json.dumps(GOOD | {"question_id": "2"}),
            "line 2: question_id must be an integer, found '2'",
        ),
        (json.dumps(GOOD | {"question_id": True}), "question_id must be an integer"),
        (json.dumps(GOOD | {"question_id": "../2"}), "question_id must be an integer"),
        (json.dumps(GOOD | {"question_id": ""}), "question_id must be an integer"),
        (json.dumps(GOOD | {"question_id": 2.0}), "question_id must be an integer"),
        (json.dumps(GOOD | {"question_id": 2, "category": 5}), "line 2: category"),
        (json.dumps(GOOD | {"question_id": 2, "category": "x" * 101}), "line 2: category"),
        (json.dumps(GOOD | {"question_id": 2, "turns": []}), "line 2: turns"),
        (json.dumps(GOOD | {"question_id": 2, "turns": "hi"}), "line 2: turns"),
        (json.dumps(GOOD | {"question_id": 2, "turns": ["hi", None]}), "line 2: turns"),
        ("[" * 100_000, "line 2 is not JSON"),
        (json.dumps(GOOD | {"question_id": 2, "reference": 5}), "line 2: reference must be"),
        (
            json.dumps(GOOD | {"question_id": 2, "turns": ["\ud800"]}),
            "line 2 is not JSON: it holds half of a surrogate pair",
        ),
        (b'{"question_id": 2, "category": "\xff"}', "line 2 is not JSON"),
    ],
)
def test_a_malformed_file_names_the_line_and_the_field(tmp_path, second_line, says):
    file = tmp_path / "question.jsonl"
    second_line = second_line if isinstance(second_line, bytes) else second_line.encode()
    file.write_bytes(json.dumps(GOOD).encode() + b"\n" + second_line + b"\n")
    with pytest.raises(UserError, match=says):
        load_questions(str(file))


def test_turns_that_are_objects_with_their_text(tmp_path):
    """As in Arena-Hard, on Windows: ids are digests, and the file begins with a byte order mark."""
    row = {"question_id": "328c149ed45a41c0b9d6f14659e63599", "turns": [{"content": "Why?"}]}
    file = tmp_path / "question.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n")
    assert load_questions(str(file)).questions[0].turns == ("Why?",)
    user = {"role": "user", "content": "Why?"}
    file.write_text(json.dumps(row | {"turns": [user]}))
    assert load_questions(str(file)).questions[0].turns == ("Why?",)
    file.write_text(json.dumps(row | {"turns": [{"role": "system", "content": "Be brief."}, user]}))
    with pytest.raises(UserError, match="line 1 has a turn of the role 'system'; the turns of a"):
        load_questions(str(file))
    file.write_text(json.dumps(row | {"turns": [{"text": "Why?"}]}))
    with pytest.raises(UserError, match="line 1: turns must be a non-empty list of non-empty"):
        load_questions(str(file))


def test_a_missing_and_an_empty_file(tmp_path):
    with pytest.raises(UserError, match="no questions at"):
        load_questions(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UserError, match="has no questions in it"):
        load_questions(str(tmp_path / "empty.jsonl"))


def test_ids_that_are_texts_and_rows_without_a_category(tmp_path):
    """As in translations of MT-Bench, in HumanEval, and in EAGLE's questions of alpaca."""
    file = tmp_path / "question.jsonl"
    ids = ("81_DE", "HumanEval/0", "q-1")
    rows = [GOOD | {"question_id": each, "category": ""} for each in ids]
    del rows[-1]["category"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    questions = load_questions(str(file)).questions
    assert [q.question_id for q in questions] == list(ids)
    assert {q.category for q in questions} == {"none"}
    file.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[0]) + "\n")
    with pytest.raises(UserError, match="line 2: question_id 81_DE stands in line 1 already"):
        load_questions(str(file))
