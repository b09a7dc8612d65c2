"""The sources that a report compares. Each is a run of `bench.run`, or an answer file.

    results/<run>           the folder of a run
    model_answer/m.jsonl    an answer file, in a dialect that `bench.store.answer_files` reads
    model_answer            a folder of answer files: all of them

A fault that does not keep a source from being shown becomes one of its `warnings`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from bench import metrics
from bench.common.errors import UserError
from bench.common.files import NAMED
from bench.common.media import one_line
from bench.inputs.published_sets import QUESTIONS, SETS, fetched
from bench.inputs.questions import Question, load_questions
from bench.reporting import counts
from bench.reporting.run_source import open_run
from bench.reporting.source import Source, shown_category, untimed
from bench.store.answer_files import ANSWERS_FOLDER, Answer, Choice, read_answers
from bench.store.question_id import QuestionId, first_few
from bench.store.run_record import RUN_FILE, holds_run
from bench.store.trees import TREES_FILE
from bench.store.turn import PUBLISHED_FILE, TURNS_FILE, Turn

OF_RUNS = (RUN_FILE, TURNS_FILE, PUBLISHED_FILE, TREES_FILE)  # Files of a run's folder.


class NoNumbers(UserError):
    """An answer file of texts alone, such as FastChat's own."""


def open_sources(path: Path, questions: str | None = None) -> tuple[list[Source], list[UserError]]:
    """The sources at a path of the command line, and errors for those that cannot be shown.

    questions: the question set of answer files, which has the categories. None: see `_questions`.
    """
    if holds_run(path):
        try:
            return [open_run(path)], []
        except UserError as error:
            return _answers_instead(path, error, questions)
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            problem = (
                f"{path} is neither a run's folder (it has no {RUN_FILE}) nor a folder of answer "
                "files (*.jsonl)"
            )
            return [], [UserError(problem)]
        return _open_files(files, questions)
    if not path.exists():
        return [], [UserError(f"{path} does not exist; expected a run's folder or an answer file")]
    if path.name in OF_RUNS:
        return [], [UserError(f"{path} is a part of a run; give the run's folder, {path.parent}")]
    return _open_files([path], questions)


def _answers_instead(
    folder: Path, error: UserError, questions: str | None
) -> tuple[list[Source], list[UserError]]:
    """The answer files of a run that cannot be read; `error` says why not."""
    files = sorted((folder / ANSWERS_FOLDER).glob("*.jsonl"))
    opened, errors = _open_files(files, questions)
    if not opened:
        return [], [error]
    first, *others = opened
    warning = f"{error}; its answer files are shown instead"
    return [replace(first, warnings=(warning, *first.warnings)), *others], errors


def _open_files(
    files: Iterable[Path], questions: str | None
) -> tuple[list[Source], list[UserError]]:
    opened, errors = [], []
    for file in files:
        try:
            opened.append(open_answers(file, questions))
        except UserError as error:
            errors.append(error)
    return opened, errors


# --- Answer files ---------------------------------------------------------------------------------


def open_answers(path: Path, questions: str | None = None) -> Source:
    """The source of an answer file. NoNumbers where it holds only texts. UserError: it is none.

    The categories are those of its rows where they have some, else those of its question set
    (`questions` as in `open_sources`).
    """
    told: list[str] = []
    answers = list(read_answers(path, told.append).values())
    ids = {answer.model_id for answer in answers}
    # Tables and figures show it: without what steers a terminal or breaks an SVG.
    label = one_line((next(iter(ids)) if len(ids) == 1 else "") or path.stem)
    if len(ids) > 1:
        told.append(
            f"{path} holds answers of {len(ids)} models ({first_few(sorted(ids))}); its numbers "
            "pool them"
        )
    answers, misfits = counts.with_fitting_lengths(answers, label)
    answers, zeros = counts.with_known_times(answers, label)
    frame = metrics.answers_frame(answers).assign(decoder=label)
    if frame.empty:
        raise NoNumbers(
            f"{path} has no numbers to report: its answers say neither how many tokens nor how "
            "many steps they took"
        )
    known, guesses = _questions(path, set(frame.question_id), questions)
    categories = {question_id: question.category for question_id, question in known.items()}
    of_set = frame.question_id.map(categories).astype(object)
    frame["category"] = frame.category.where(frame.category.notna(), of_set).map(shown_category)
    asked = {
        answer.question_id: max(
            *(len(choice.turns) for choice in answer.choices),
            len(known[answer.question_id].turns) if answer.question_id in known else 1,
        )
        for answer in answers
    }
    turns = tuple(_turns_of_answers(label, answers, categories))
    frame, wrong = counts.possible(frame, turns, label)
    if frame.empty:
        raise UserError(f"{path} has no numbers to report: {wrong[0]}")
    failures = _failures(path, answers)
    missing = counts.missing_turns(answers, asked, label)
    uncounted = counts.without_counts(answers, label)
    odd = counts.doubtful(frame, turns, label)
    times = zeros or untimed(frame, "wall_s")
    warnings = [*told, *guesses, *failures, *missing, *uncounted, *wrong, *odd, *misfits, *times]
    if frame.category.isna().any():
        warnings.append(
            f"{label}: the categories of its questions are not known here; --questions of "
            "bench.report names their set"
        )
    return Source(
        name=label,
        frame=frame,
        labels=(label,),
        asked=asked,
        options={label: {"decoder": label}},
        complete=not (failures or missing or uncounted or wrong),
        warnings=tuple(warnings),
        file=path,
        turns=turns,
        questions={question_id: question.turns for question_id, question in known.items()},
    )


def _turns_of_answers(
    label: str, answers: Iterable[Answer], categories: Mapping[QuestionId, str]
) -> Iterable[Turn]:
    """The texts of an answer file as turns. What the file does not hold is empty, 0 or NaN."""
    for answer in answers:
        for number, choice in enumerate(answer.choices):
            for index, text in enumerate(choice.turns):
                failed = not choice.answered(index + 1)
                yield Turn(
                    question_id=answer.question_id,
                    category=answer.category or categories.get(answer.question_id, ""),
                    decoder=label,
                    choice=number,
                    turn=index + 1,
                    temperature=math.nan,
                    seed=0,
                    prompt_tokens=0,
                    token_ids=[],
                    accept_lengths=[] if failed else _kept(choice, index),
                    nodes=[],
                    prefill_s=math.nan,
                    decode_s=math.nan,
                    finish_reason="error" if failed else "unknown",
                    error="recorded as an error" if failed else None,
                    text=text,
                )


def _kept(choice: Choice, index: int) -> list[int]:
    """Accept lengths of a turn as numbers have them. Empty: they are not known."""
    if choice.accept_lengths is None or choice.tokens is None:
        return []
    return metrics.kept_lengths(choice.accept_lengths[index], choice.tokens[index]).tolist()


def _failures(path: Path, answers: Iterable[Answer]) -> list[str]:
    """Warnings of turns that are recorded as an error: the first ones, and how many more."""
    failures = [
        f"{path.name}: question {answer.question_id}, turn {index + 1} is recorded as an error"
        f"{_copied(choice, index)}; it is left out"
        for answer in answers
        for choice in answer.choices
        for index in range(len(choice.turns))
        if not choice.answered(index + 1)
    ]
    if len(failures) <= NAMED:
        return failures
    more = f"{path.name}: {len(failures) - NAMED} more turns are recorded as an error"
    return [*failures[:NAMED], f"{more}; they are left out"]


def _copied(choice: Choice, index: int) -> str:
    """Whether a failed turn has the numbers of the turn before, in words. Empty: it has not."""
    columns = (choice.steps, choice.tokens, choice.wall_s)
    known = [column for column in columns if column is not None]
    if index and known and all(column[index] == column[index - 1] for column in known):
        return " with the numbers of the turn before"
    return ""


def _questions(
    path: Path, asked: set[QuestionId], questions: str | None
) -> tuple[dict[QuestionId, Question], list[str]]:
    """The questions that an answer file answers, by id, and warnings.

    They are those of the set named `questions`. None: of ../question.jsonl, where FastChat's layout
    has them, else of a published set in the cache; each only where it has all that are `asked`.
    Empty: there is none.
    """
    if questions:
        return _by_id(questions), []
    warnings = []
    beside = path.resolve().parent.parent / QUESTIONS
    if beside.is_file():
        try:
            known = _by_id(str(beside))
        except UserError as error:
            known = {}
            warnings.append(f"{error}; the file is left aside")
        if asked <= known.keys():
            return known, warnings
    for name in SETS:
        if fetched(name, QUESTIONS, download=False) and asked <= (known := _by_id(name)).keys():
            warnings.append(
                f"the questions of answer files are guessed by their numbers to be {name}'s; "
                "--questions of bench.report names another set"
            )
            return known, warnings
    return {}, warnings


def _by_id(questions: str) -> dict[QuestionId, Question]:
    """The questions of a set, by id. questions: its name, or the path of a file."""
    return {each.question_id: each for each in load_questions(questions).questions}
