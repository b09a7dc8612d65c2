"""Plans the judgments: which models, references and prompts belong together.

Warns of what is not judged, and of what is judged in an unexpected way.
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.inputs.questions import Question
from bench.store.answer_files import Answer, read_answers
from bench.store.question_id import QuestionId, first_few
from llm_judge.judge_folder import Bench
from llm_judge.judging import (
    NEED_REFERENCE,
    PAIRWISE,
    SINGLE,
    Match,
    make_matches,
    needs_reference,
    read_prompts,
    turns_judged,
)
from llm_judge.thinking import without_thinking


def plan(
    bench: Bench,
    mode: str,
    judge: str,
    models: Sequence[str] | None,
    baseline: str,
    *,
    first: int | None = None,
    prompt_file: Path | None = None,
    reference_file: Path | None = None,
    no_references: bool = False,
    strip_thinking: bool = False,
) -> list[Match]:
    """All judgments of a bench's answers that can be made.

    mode: one of `MODES`.
    models: those to be judged. None: all that have an answer file.
    baseline: the model that pairwise-baseline compares with.
    first: only the first so many questions. None: all.
    prompt_file, reference_file: None: the bench's own.
    no_references: judge every question without one.
    strip_thinking: leave out the thoughts that an answer begins with.

    Warns of what is not judged. UserError where there is nothing to judge, or a file that is
    needed is missing or wrong.
    """
    all_questions = bench.questions().questions
    questions = all_questions[:first]
    contests = _contests(bench, mode, models, baseline)
    answers = {model: bench.read_model(model) for contest in contests for model in contest}
    _warn_of_later_turns(questions)
    for model, given in answers.items():
        _warn_of_strangers(model, given, all_questions)
        _warn_of_holes(model, given, questions)
        _warn_of_thoughts(model, given, questions, strip_thinking)
    if strip_thinking:
        answers = {model: _without_thoughts(given) for model, given in answers.items()}
    kind = SINGLE if mode == "single" else PAIRWISE
    prompts = read_prompts(prompt_file or bench.prompt_file(), kind)
    references: dict[QuestionId, Answer] | None = None if no_references else {}
    if references is not None and any(map(needs_reference, questions)):
        references = read_answers(reference_file or _reference_file(bench, judge))
    matches = make_matches(questions, answers, contests, prompts, references)
    if not matches:
        raise UserError(
            f"nothing to judge: {', '.join(answers)} answered none of the {len(questions)} "
            "questions"
        )
    return matches


def _contests(
    bench: Bench, mode: str, models: Sequence[str] | None, baseline: str
) -> list[tuple[str, ...]]:
    """The models to be judged, singly or in pairs."""
    models = list(dict.fromkeys(models or bench.models()))
    if not models:
        raise UserError(
            f"no answers to judge: {bench.answers} has no answer file; run a gen_model_answer "
            "command first"
        )
    if mode == "single":
        return [(model,) for model in models]
    if mode == "pairwise-baseline":
        contests = [(model, baseline) for model in models if model != baseline]
    else:
        contests = list(combinations(models, 2))
    if not contests:
        raise UserError(f"--mode {mode} needs two models with answers, found {', '.join(models)}")
    return contests


def _warn_of_strangers(
    model: str, answers: dict[QuestionId, Answer], questions: tuple[Question, ...]
) -> None:
    """Warn of answers to questions that the bench does not have."""
    known = {question.question_id for question in questions}
    strange = [question_id for question_id in answers if question_id not in known]
    if strange:
        warn(
            f"{model} answers {len(strange)} questions that the bench does not have "
            f"({first_few(strange)}); they are not judged"
        )


def _warn_of_holes(
    model: str, answers: dict[QuestionId, Answer], questions: tuple[Question, ...]
) -> None:
    """Warn of questions that a model did not answer. They are not judged, and get no grade."""
    for turn in (1, 2):
        holes = []
        for question in questions:
            answer = answers.get(question.question_id)
            is_answered = answer is not None and answer.choices[0].answered(turn)
            if len(question.turns) >= turn and not is_answered:
                holes.append(question.question_id)
        if holes:
            warn(
                f"{model} has no answer in turn {turn} to {len(holes)} of {len(questions)} "
                f"questions ({first_few(holes)}); they are not judged"
            )
    if any(len(answer.choices) > 1 for answer in answers.values()):
        print(
            f"note: {model} has several choices to a question; the first is judged, as in FastChat",
            file=sys.stderr,
        )


def _warn_of_later_turns(questions: Iterable[Question]) -> None:
    """Warn of questions with turns that no prompt asks about."""
    long = [each.question_id for each in questions if turns_judged(each) < len(each.turns)]
    if long:
        warn(
            f"{len(long)} questions have more than two turns ({first_few(long)}); only their first "
            "turn is judged, turns 2 and on are not"
        )


def _warn_of_thoughts(
    model: str, answers: dict[QuestionId, Answer], questions: tuple[Question, ...], stripped: bool
) -> None:
    """Warn of answers that are empty or begin with thoughts.

    stripped: the judge is not shown the thoughts.
    """
    shown = (answers.get(question.question_id) for question in questions)
    texts = [text for answer in shown if answer is not None for text in answer.choices[0].turns]
    bare = [without_thinking(text) for text in texts]
    thoughts = sum(text != left for text, left in zip(texts, bare, strict=True))
    if thoughts and not stripped:
        warn(
            f"{thoughts} of {len(texts)} answers of {model} begin with thoughts, which the judge "
            "is shown; --strip-thinking leaves them out"
        )
    empty = sum(not text.strip() for text in bare)
    if empty:
        what = "are empty, or thoughts without an answer" if thoughts else "are empty"
        warn(f"{empty} of {len(texts)} answers of {model} {what}; they are judged as they are")


def _without_thoughts(answers: dict[QuestionId, Answer]) -> dict[QuestionId, Answer]:
    """The answers as a user sees them."""
    return {
        question_id: replace(
            answer,
            choices=tuple(
                replace(choice, turns=tuple(map(without_thinking, choice.turns)))
                for choice in answer.choices
            ),
        )
        for question_id, answer in answers.items()
    }


def _reference_file(bench: Bench, judge: str) -> Path:
    """The judge's reference answers, or those of another judge where they are the only ones."""
    by_judge = bench.references / f"{judge}.jsonl"
    if by_judge.is_file():
        return by_judge
    there = sorted(bench.references.glob("*.jsonl"))
    if len(there) == 1:
        return there[0]
    found = ", ".join(path.name for path in there) or "no file"
    raise UserError(
        f"questions of {', '.join(NEED_REFERENCE[:3])} are judged against reference answers: "
        f"expected {by_judge} or a single file beside it, found {found}; name one with "
        "--reference-file, or judge them without by --no-references"
    )
