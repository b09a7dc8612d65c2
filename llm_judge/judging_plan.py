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
    has_reference,
    make_matches,
    needs_reference,
    read_prompts,
    turns_judged,
)
from llm_judge.thinking import without_thinking

# Categories that are judged against a reference, as messages name them.
_CATEGORIES = ", ".join(NEED_REFERENCE[:3])
_NAMED = 3  # Categories that a message names.


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

    Warns of what is not judged. UserError where there is nothing to judge, a file that is needed is
    missing or wrong, or the reference file is of no use.
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
    references = None if no_references else _references(bench, judge, questions, reference_file)
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


def _references(
    bench: Bench, judge: str, questions: Sequence[Question], file: Path | None
) -> dict[QuestionId, Answer]:
    """The reference answers by question_id. Empty where no question needs one.

    file: that of --reference-file. None: the bench's own. UserError where it has no effect.

    Warns of references to questions that are judged without one.
    """
    if any(map(needs_reference, questions)):
        references = read_answers(file or _reference_file(bench, judge))
        _warn_of_unused_references(questions, references)
        return references
    if file is not None:
        read_answers(file)  # A wrong path is the better reason to refuse the flag.
        raise UserError(
            f"--reference-file has no effect: none of the {len(questions)} questions to judge is "
            f"of {_CATEGORIES}, and questions of other categories ({_categories(questions)}) are "
            "judged without a reference; leave the flag out, or give the questions one of these "
            "categories"
        )
    there: dict[QuestionId, Answer] = {}
    for path in _reference_files(bench, judge):
        try:
            there |= read_answers(path, tell=lambda _: None)
        except UserError as error:  # It is not needed.
            warn(str(error))
    _warn_of_unused_references(questions, there)
    return {}


def _warn_of_unused_references(
    questions: Sequence[Question], references: dict[QuestionId, Answer]
) -> None:
    """Warn of questions that have a reference, and are judged without it for their category."""
    unused = [
        question
        for question in questions
        if not needs_reference(question) and has_reference(question, references)
    ]
    if unused:
        ids = [question.question_id for question in unused]
        warn(
            f"{len(unused)} questions have a reference answer and are judged without it "
            f"({first_few(ids)}): their category ({_categories(unused)}) is none of {_CATEGORIES}"
        )


def _categories(questions: Iterable[Question]) -> str:
    """The categories of questions, as a message names them."""
    found = list(dict.fromkeys(question.category.strip() or "none" for question in questions))
    return ", ".join(found[:_NAMED]) + (", ..." if len(found) > _NAMED else "")


def _reference_files(bench: Bench, judge: str) -> list[Path]:
    """The judge's file of reference answers, or those of all other judges."""
    by_judge = bench.references / f"{judge}.jsonl"
    return [by_judge] if by_judge.is_file() else sorted(bench.references.glob("*.jsonl"))


def _reference_file(bench: Bench, judge: str) -> Path:
    """The judge's reference answers, or those of another judge where they are the only ones."""
    there = _reference_files(bench, judge)
    if len(there) == 1:
        return there[0]
    expected = bench.references / f"{judge}.jsonl"
    found = ", ".join(path.name for path in there) or "no file"
    raise UserError(
        f"questions of {_CATEGORIES} are judged against reference answers: expected {expected} or "
        f"a single file beside it, found {found}; name one with --reference-file, or judge them "
        "without by --no-references"
    )
