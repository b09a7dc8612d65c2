"""Plans the judgments: which models, references and prompts belong together."""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.inputs.questions import Question
from bench.store.answer_files import Answer, read_answers
from llm_judge.judge_folder import Bench
from llm_judge.judging import (
    NEED_REFERENCE,
    PAIRWISE,
    SINGLE,
    Match,
    make_matches,
    read_prompts,
)

LISTED = 5  # Most questions that a warning names.


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
) -> list[Match]:
    """All judgments of a bench's answers that can be made.

    mode: one of `MODES`.
    models: those to be judged. None: all that have an answer file.
    baseline: the model that pairwise-baseline compares with.
    first: only the first so many questions. None: all.
    prompt_file, reference_file: None: the bench's own.

    Warns of answers that are missing. UserError where there is nothing to judge, or a file that is
    needed is missing or wrong.
    """
    questions = bench.questions().questions[:first]
    contests = _contests(bench, mode, models, baseline)
    answers = {model: bench.read_model(model) for contest in contests for model in contest}
    for model, given in answers.items():
        _warn_of_holes(model, given, questions)
    kind = SINGLE if mode == "single" else PAIRWISE
    prompts = read_prompts(prompt_file or bench.prompt_file(), kind)
    references = {}
    if any(question.category in NEED_REFERENCE for question in questions):
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


def _warn_of_holes(model: str, answers: dict[int, Answer], questions: tuple[Question, ...]) -> None:
    """Warn of questions that a model did not answer. They are not judged, and get no grade."""
    for turn in (1, 2):
        holes = []
        for question in questions:
            answer = answers.get(question.question_id)
            is_answered = answer is not None and answer.choices[0].answered(turn)
            if len(question.turns) >= turn and not is_answered:
                holes.append(question.question_id)
        if holes:
            listed = ", ".join(map(str, holes[:LISTED])) + (", ..." if len(holes) > LISTED else "")
            warn(
                f"{model} has no answer in turn {turn} to {len(holes)} of {len(questions)} "
                f"questions ({listed}); they are not judged"
            )
    if any(len(answer.choices) > 1 for answer in answers.values()):
        print(
            f"note: {model} has several choices to a question; the first is judged, as in FastChat",
            file=sys.stderr,
        )


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
        "--reference-file"
    )
