"""Judgment files of all kinds of programs are read, and what does not compare is said."""

import json
import math
import re

import pytest

from bench.common.errors import UserError
from llm_judge.judgments import (
    differences,
    has_verdict,
    is_single,
    misread,
    models_of,
    read_judgments,
)


def single(question_id=1, score=7, **more):
    row = {"question_id": question_id, "model": "m", "judge": ["j", "single-v1"]}
    row |= {"user_prompt": "p", "judgment": f"Rating: [[{score}]]", "score": score, "turn": 1}
    return row | more


def pair(g1="[[A]]", g2="[[B]]", winners=("model_1", "model_1")):
    return {
        "question_id": 1,
        "model_1": "m",
        "model_2": "n",
        "g1_winner": winners[0],
        "g2_winner": winners[1],
        "judge": ["j", "pair-v2"],
        "g1_judgment": g1,
        "g2_judgment": g2,
        "turn": 1,
    }


@pytest.fixture
def read(tmp_path):
    """A function that writes these rows, and returns what is read and what is told."""

    def written(*rows, end=""):
        path = tmp_path / "judgments.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
        said = []
        return read_judgments(path, said.append), said

    return written


def test_every_judgment_of_an_answer_is_read(read):
    rows, said = read(*(single(score=score) for score in (9, 9, 3)))
    assert [row["score"] for row in rows] == [9, 9, 3] and said == []
    [again] = differences(rows)
    assert again.startswith("1 turns (question 1, turn 1, ...) are judged more than once")


def test_a_bad_line_does_not_hide_the_others(read):
    rows, said = read(single(), {"question_id": 2}, single(3, score="7"), single(4), end='{"torn')
    assert [row["question_id"] for row in rows] == [1, 4]
    assert [text.split(", ", 1)[1] for text in said] == [
        "line 2 is not a judgment: it has no 'judge'; it is left out",
        "line 3 is not a judgment: score is '7'; it is left out",
        "line 5 is torn; it is left out",
    ]
    with pytest.raises(UserError, match="line 1 is not a judgment: it has no 'judge'"):
        read({"question_id": 2})
    with pytest.raises(UserError, match=r"judge must be \[model, prompt name\]"):
        read(single(judge=["a", 1]))


def test_ids_and_judges_as_texts_are_read(read):
    rows, said = read(single("12"), single("81_DE"), single(judge="gpt-4"))
    assert [row["question_id"] for row in rows] == [12, "81_DE", 1] and said == []
    assert rows[2]["judge"] == ["gpt-4", ""]


def test_whole_numbers_of_pandas_are_read(read):
    rows, said = read(single(81.0, turn=1.0))
    assert [(row["question_id"], row["turn"]) for row in rows] == [(81, 1)] and said == []
    with pytest.raises(UserError, match=r"question_id is 81\.5"):
        read(single(81.5))


def test_a_table_of_both_kinds_is_read(read):
    """Fields of the other kind are empty there, or hold something else."""
    grade = dict.fromkeys(("model", "score", "judgment"))
    rows, said = read(single(model_1=None, g1_judgment=None), pair() | grade, pair() | {"score": 1})
    assert [is_single(row) for row in rows] == [True, False, False] and said == []
    assert [models_of(row) for row in rows] == [["m"], ["m", "n"], ["m", "n"]]
    assert all(map(has_verdict, rows)) and misread(rows) == []


@pytest.mark.parametrize("stored", ["Tie", "model 1", " MODEL_2 "])
def test_a_winner_in_another_notation_is_read(read, stored):
    [row], said = read(pair(winners=(stored, stored)))
    expected = stored.strip().lower().replace(" ", "_")
    assert (row["g1_winner"], row["g2_winner"]) == (expected, expected) and said == []


def test_a_winner_that_is_none_is_said(read):
    rows, said = read(pair(), pair(winners=("A", "A")))
    assert len(rows) == 1 and len(said) == 1
    assert "line 2 is not a judgment: g1_winner is 'A', and none of model_1, mod" in said[0]


@pytest.mark.parametrize("none", [None, math.nan, -1])
def test_where_the_score_is_none_the_text_is_read(read, none):
    rows, _ = read(
        single(score=none, judgment="[[Rating: 8]]"), single(score=none, judgment="Who knows")
    )
    assert [has_verdict(row) for row in rows] == [True, False]
    assert rows[0]["score"] == 8
    [row], _ = read(pair("[[Assistant A]]", "Who knows", winners=("error", "error")))
    assert (row["g1_winner"], row["g2_winner"]) == ("model_1", "error")


@pytest.mark.parametrize("score", [85, 0, 10.5, -3])
def test_a_score_beyond_the_scale_is_no_grade(read, score):
    [row], _ = read(single(score=score))
    assert not has_verdict(row)


def test_a_stored_verdict_that_is_not_in_the_text_is_said(read):
    rows, _ = read(single(score=3, judgment="[[3]]? Rather [[9]]"), single(2), single(3))
    [said] = misread(rows)
    assert said.startswith("1 judgments (question 1, turn 1, ...) store another verdict")
    assert rows[0]["score"] == 3
    rows, _ = read(pair(), pair("[[A]]? No, [[B]]"))
    assert misread(rows[:1]) == [] and len(misread(rows)) == 1


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"prompt_sha256": "a"}, {"prompt_sha256": "b"}, "prompt single-v1 is there in several"),
        ({"temperature": 0}, {"temperature": None}, r"several temperatures \(0, None\)"),
    ],
)
def test_judgments_by_several_rubrics_are_said(read, one, other, said):
    """Also where they are of other questions: a mean is over all of them."""
    rows, _ = read(single(**one), single(2, **other))
    assert [re.search(said, each) is not None for each in differences(rows)] == [True]
    rows, _ = read(single(**one), single(2))  # What a row does not say may be the same.
    assert differences(rows) == []


def test_two_templates_of_one_name_are_said_by_their_texts(read):
    """FastChat's rows do not say their version."""
    ours, theirs = "=== User ===\nWhy?\n=== End ===", "[Question]\nWhy?\n[The End]"
    rows, _ = read(
        single(user_prompt=ours, prompt_sha256="a"), single(2, model="n", user_prompt=theirs)
    )
    [said] = differences(rows)
    assert said.startswith("the prompt single-v1 is there in several versions")
    rows, _ = read(single(user_prompt=ours), single(2, user_prompt=ours.replace("Why", "How")))
    assert differences(rows) == []
    rows, _ = read(single(user_prompt=ours), single(2, user_prompt=""))
    assert differences(rows) == []


def test_judgments_of_a_turn_by_several_prompts_are_said(read):
    maths = {"judge": ["j", "single-math-v1"]}
    rows, _ = read(single(), single(model="n", **maths), single(2, **maths))
    [said] = differences(rows)
    assert said.startswith("1 turns (question 1, turn 1, ...) are judged by several prompts")
    assert differences(rows[1:]) == []


def test_judgments_of_several_versions_of_an_answer_are_said(read):
    rows, _ = read(single(), single(user_prompt="another answer"))
    assert any("or of several answers" in said for said in differences(rows))
