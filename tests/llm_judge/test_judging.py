"""What a judge is asked, beside the published prompts and judgments."""

import json
from dataclasses import replace

import pytest

from bench.common.errors import UserError
from bench.common.files import read_rows
from bench.inputs.questions import SAMPLE_FOLDER, Question, load_questions
from bench.store.answer_files import Answer, Choice, read_answers
from llm_judge.judge_folder import OWN_PROMPTS
from llm_judge.judging import (
    NAMES,
    PAIRWISE,
    SINGLE,
    Match,
    make_matches,
    read_prompts,
)
from llm_judge.judgments import read_judgments
from tests.helpers.paths import SHARED

DATA = SHARED / "mt_bench"
JUDGMENTS = DATA / "medusa" / "model_judgment" / "gpt-4_single.jsonl"
MEDUSA = "medusa-vicuna-7b-v1.3-1-temperature-0.0-posterior_threshold-0.09-posterior_alpha-0.3"

official = pytest.mark.skipif(not DATA.is_dir(), reason=f"the official files are not at {DATA}")


@official
def test_the_published_prompts_are_built_from_the_published_answers_to_the_letter():
    """Of all categories and both turns. Maths, reasoning and coding have their references."""
    matches = make_matches(
        load_questions(str(DATA / "fastchat" / "question.jsonl")).questions,
        {MEDUSA: read_answers(DATA / "medusa" / "model_answer" / f"{MEDUSA}.jsonl")},
        [(MEDUSA,)],
        read_prompts(DATA / "fastchat" / "judge_prompts.jsonl", SINGLE),
        read_answers(DATA / "fastchat" / "reference_answer" / "gpt-4.jsonl"),
    )
    published = {
        (row["question_id"], row["turn"]): row
        for row in read_judgments(JUDGMENTS)
        if row["model"] == MEDUSA
    }
    assert len(matches) == len(published) == 160
    for match in matches:
        row = published[match.question_id, match.turn]
        assert (match.prompt, match.users) == (row["judge"][1], (row["user_prompt"],))
        made = match.row("gpt-4", [row["judgment"]], row["tstamp"])
        assert made == row and list(made) == list(row)


def test_our_own_prompts_have_all_names_and_say_nothing_of_the_published_ones():
    for kind in (SINGLE, PAIRWISE):
        assert len(read_prompts(OWN_PROMPTS, kind)) == 4
    if DATA.is_dir():
        published = {
            row["name"]: row for _, row in read_rows(DATA / "fastchat" / "judge_prompts.jsonl")
        }
        for _, row in read_rows(OWN_PROMPTS):
            theirs = published[row["name"]]
            assert all(theirs[key] == row[key] for key in ("name", "type", "output_format"))
            assert not _word_runs(row, 8) & _word_runs(theirs, 8)


def _word_runs(row: dict, length: int) -> set[tuple[str, ...]]:
    words = f"{row['system_prompt']} {row['prompt_template']}".lower().split()
    return {tuple(words[at : at + length]) for at in range(len(words) - length + 1)}


LATER = ("question_2", "ref_answer_2", "answer_2")


@pytest.mark.parametrize("kind", [SINGLE, PAIRWISE])
def test_a_judge_of_the_first_turn_is_shown_nothing_of_the_second(kind):
    """Neither by our prompts, nor by a prompt that asks for it."""
    questions = [Question(1, "math", ("ask one", "ask two"))]

    def answer(name):
        return Answer(1, name, (Choice((f"{name} one", f"{name} two")),))

    def matches(prompts):
        answers = {name: {1: answer(name)} for name in ("a", "b")}
        contest = ("a",) if kind == SINGLE else ("a", "b")
        return make_matches(questions, answers, [contest], prompts, {1: answer("right")})

    prompts = read_prompts(OWN_PROMPTS, kind)
    first, second = matches(prompts)
    shown = ["ask", "right", "a"] if kind == SINGLE else ["ask", "right", "a", "b"]
    for user in first.users:
        assert all(f"{name} one" in user for name in shown) and " two" not in user
    for user in second.users:
        assert all(f"{name} {turn}" in user for name in shown for turn in ("one", "two"))
    for name in LATER:
        template = {key: replace(each, template=f"{{{name}}}") for key, each in prompts.items()}
        with pytest.raises(UserError, match=f"cannot be filled in: KeyError '{name}'"):
            matches(template)


def test_a_missing_reference_is_said(tmp_path):
    questions = load_questions("sample").questions
    reference = read_answers(SAMPLE_FOLDER / "reference_answer" / "reference.jsonl")
    path = tmp_path / "m.jsonl"
    rows = [
        {"question_id": q.question_id, "choices": [{"turns": ["one", "two"]}]} for q in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = {"m": read_answers(path)}
    prompts = read_prompts(OWN_PROMPTS, SINGLE)
    assert len(make_matches(questions, answers, [("m",)], prompts, reference)) == 48
    del reference[11]
    with pytest.raises(UserError, match=r"question 11 \(math\)"):
        make_matches(questions, answers, [("m",)], prompts, reference)


@pytest.mark.parametrize(
    ("turns", "turn"), [(("", "two"), 1), (("ERROR", "two"), 1), (("one", " \n"), 2)]
)
def test_an_empty_reference_is_none(turns, turn):
    question = Question(1, "math", ("ask one", "ask two"))
    answers = {"m": {1: Answer(1, "m", (Choice(("one", "two")),))}}
    reference = {1: Answer(1, "r", (Choice(turns),))}
    prompts = read_prompts(OWN_PROMPTS, SINGLE)
    with pytest.raises(UserError, match=f"the reference file has none to its turn {turn}"):
        make_matches([question], answers, [("m",)], prompts, reference)


def test_a_prompt_file_that_does_not_fit_is_said(tmp_path):
    path = tmp_path / "prompts.jsonl"
    with pytest.raises(UserError, match="--judge-file"):
        read_prompts(path, SINGLE)
    rows = [row for _, row in read_rows(OWN_PROMPTS)]

    def write(rows):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    write(row for row in rows if row["name"] != "single-math-v1")
    with pytest.raises(UserError, match="no prompt 'single-math-v1'"):
        read_prompts(path, SINGLE)
    write(row | {"output_format": "[[rating_a,rating_b]]"} for row in rows)
    with pytest.raises(UserError, match="output format"):
        read_prompts(path, PAIRWISE)


def test_the_order_of_two_models_does_not_make_another_judgment():
    def match(*models):
        return Match(1, 1, models, NAMES[PAIRWISE, False], "", ("x", "y"))

    assert match("a", "b").key == match("b", "a").key != match("a", "c").key
