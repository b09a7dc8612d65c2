"""The sources that a report compares. Each is a run of `bench.run`, or an answer file.

    results/<run>           the folder of a run
    model_answer/m.jsonl    an answer file, in a dialect that `bench.store.answer_files` reads
    model_answer            a folder of answer files: all of them

A fault that does not keep a source from being shown becomes one of its `warnings`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bench import metrics
from bench.common.errors import UserError
from bench.common.files import shown
from bench.common.media import one_line
from bench.inputs.published_sets import QUESTIONS, SETS, fetched
from bench.inputs.questions import Question, load_questions
from bench.store.answer_files import ANSWERS_FOLDER, Answer, read_answers
from bench.store.run_record import RUN_FILE, Config, Run, read_run
from bench.store.trees import AnswerTrees, read_trees
from bench.store.turn import TURNS_FILE, Key, Turn, read_turns
from decoders.spec import Spec

# Settings of a whole run that tokens and times depend on, whatever the decoder.
CONDITIONS = (
    "temperature",
    "acceptance",
    "top_p",
    "posterior_threshold",
    "posterior_alpha",
    "max_new_tokens",
)
SHARED_OPTIONS = ("nodes", "topk", "depth", "tree")  # Of a run, for all decoders that have them.


@dataclass(frozen=True, eq=False)
class Source:
    """Turns that were generated together.

    A label is the name of a decoder in a report, unique among all sources.
    """

    name: str
    frame: pd.DataFrame  # Columns: `metrics.COLUMNS`. `frame.decoder` holds labels.
    labels: tuple[str, ...]  # In the order in which they are shown.
    asked: dict[int, int]  # question_id -> how many turns it has.
    options: dict[str, dict]  # Label -> its decoder's name and options; see `_options`.
    environment: dict | None = None  # Machine and versions. None: not recorded.
    conditions: dict | None = None  # CONDITIONS -> what the run was set to. None: not recorded.
    complete: bool = True  # Was every turn finished?
    warnings: tuple[str, ...] = ()
    folder: Path | None = None  # The run's folder. None: an answer file.
    run: Run | None = None  # The run.json in `folder`.
    # Texts of all turns, failed ones included. Turns of an answer file have no numbers.
    turns: tuple[Turn, ...] = ()
    trees: Mapping[Key, AnswerTrees] = field(default_factory=dict)  # Of the turns that have some.
    # question_id -> what the user says, turn by turn; where that is known.
    questions: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def baseline(self) -> str | None:
        """The label of the source's own greedy decoder. None: it has none."""
        for label in self.labels:
            if self.options[label]["decoder"] == metrics.BASELINE:
                return label
        return None


class NoNumbers(UserError):
    """An answer file of texts alone, such as FastChat's own."""


def open_sources(path: Path, questions: str | None = None) -> tuple[list[Source], list[UserError]]:
    """The sources at a path of the command line, and errors for those that cannot be shown.

    questions: the question set of answer files, which has the categories. None: a published set in
    the cache that has all their questions, if there is one.
    """
    if (path / RUN_FILE).exists():
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


def _untimed(frame: pd.DataFrame, seconds: str) -> list[str]:
    """Warnings of decoders that have times for some of their turns only."""
    warnings = []
    for decoder, turns in frame.groupby("decoder", sort=False):
        untimed = turns[turns[seconds].isna()]
        if 0 < len(untimed) < len(turns):
            first = untimed.iloc[0]
            warnings.append(
                f"{decoder}: {len(untimed)} of {len(turns)} turns have no usable time, first "
                f"question {first.question_id}, turn {first.turn}; they are in no time"
            )
    return warnings


def _shown_category(category: object) -> object:
    return one_line(category) if isinstance(category, str) else category


# --- Runs -----------------------------------------------------------------------------------------


def open_run(folder: Path) -> Source:
    """The run of a folder. UserError where it is no run of this version, or no turn is finished."""
    run = read_run(folder)
    decoders = run.config.labels
    turns, warnings = _turns_of_run(folder, run)
    frame = metrics.frame(turns)
    frame["category"] = frame.category.map(_shown_category)
    if strange := set(frame.question_id) - run.question_turns.keys():
        raise UserError(
            f"{folder / TURNS_FILE} has turns of question {min(strange)}, which this run does not "
            "ask"
        )
    wanted = sum(run.question_turns.values()) * run.config.num_choices
    finished = {decoder: int((frame.decoder == decoder).sum()) for decoder in decoders}
    warnings += _unfinished(folder, run, finished, wanted)
    warnings += _untimed(frame, "decode_s")
    try:
        trees = read_trees(folder)
    except UserError as error:
        trees = {}
        warnings.append(f"{error}; the report is without trees")
    if _has_moved(run):
        warnings.append(
            f"{folder}: its sittings were on different machines or versions; its times do not "
            "compare"
        )
    options = {
        label: _options(run.config, Spec.parse(text), frame)
        for label, text in zip(decoders, run.config.decoders, strict=True)
    }
    return Source(
        name=folder.resolve().name,
        frame=frame,
        labels=tuple(decoder for decoder in decoders if finished[decoder]),
        asked=run.question_turns,
        options=options,
        environment=run.environment.as_json(),
        conditions={name: getattr(run.config, name) for name in CONDITIONS},
        complete=all(count == wanted for count in finished.values()),
        warnings=tuple(warnings),
        folder=folder,
        run=run,
        turns=tuple(turns),
        trees=trees,
        questions=run.question_texts,
    )


def _turns_of_run(folder: Path, run: Run) -> tuple[list[Turn], list[str]]:
    """The turns of the run's decoders, question by question, and warnings.

    UserError where none of them is finished.
    """
    turns, warnings = read_turns(folder / TURNS_FILE)
    # Workers finish in any order.
    place = {question_id: at for at, question_id in enumerate(run.question_turns)}
    turns.sort(key=lambda turn: (place.get(turn.question_id, 0), turn.key))
    reason = ""
    if others := sorted({turn.decoder for turn in turns} - set(run.config.labels)):
        more = f" and {len(others) - 1} more decoders" if len(others) > 1 else ""
        reason = (
            f"{folder / TURNS_FILE} has turns of {shown(others[0])}{more}, which {RUN_FILE} does "
            "not name"
        )
        warnings.append(f"{reason}; they are left out")
        turns = [turn for turn in turns if turn.decoder in run.config.labels]
    if all(turn.failed for turn in turns):
        if turns:
            reason = f"{len(turns)} failed, first: {turns[0].error}"
        raise UserError(f"{folder} has no finished turn" + (f"; {reason}" if reason else ""))
    return turns, warnings


def _unfinished(folder: Path, run: Run, finished: Mapping[str, int], wanted: int) -> list[str]:
    """Warnings of a run that has no end, and of decoders with fewer than `wanted` turns."""
    warnings = []
    if run.end is None:
        warnings.append(
            f"{folder}: this run is in progress, or was interrupted; what is shown may change"
        )
    for decoder, count in finished.items():
        if count < wanted:
            warnings.append(
                f"{folder}: {decoder}: {count} of {wanted} turns are finished; the others are in "
                "no number"
            )
    return warnings


def _has_moved(run: Run) -> bool:
    """Were the sittings of a run on different machines or versions?"""
    environments = [
        session.environment.as_json() for session in run.sessions if session.environment is not None
    ]
    return any(environment != environments[0] for environment in environments)


def _options(config: Config, spec: Spec, frame: pd.DataFrame) -> dict:
    """`decoder` (its name), its options as far as they are known, `temperature` and `acceptance`.

    Where `nodes` was not given, it is the largest tree that was verified.
    """
    trees = frame[frame.decoder == spec.label].nodes
    options: dict[str, object] = {"nodes": max((int(n.max(initial=0)) for n in trees), default=0)}
    for name in SHARED_OPTIONS:
        if (value := getattr(config, name)) is not None:
            options[name] = value
    return {
        "decoder": spec.name,
        **options,
        **spec.options,
        "temperature": config.temperature,
        "acceptance": config.acceptance,
    }


# --- Answer files ---------------------------------------------------------------------------------


def open_answers(path: Path, questions: str | None = None) -> Source:
    """The source of an answer file. NoNumbers where it holds only texts. UserError: it is none.

    The categories are those of its rows where they have some, else those of its question set
    (`questions` as in `open_sources`).
    """
    answers = list(read_answers(path).values())
    ids = {answer.model_id for answer in answers}
    # Tables and figures show it: without what steers a terminal or breaks an SVG.
    label = one_line((ids.pop() if len(ids) == 1 else "") or path.stem)
    frame = metrics.answers_frame(answers).assign(decoder=label)
    if frame.empty:
        raise NoNumbers(
            f"{path} has no numbers to report: its answers say neither how many tokens nor how "
            "many steps they took"
        )
    known = _questions(set(frame.question_id), questions)
    categories = {question_id: question.category for question_id, question in known.items()}
    of_set = frame.question_id.map(categories).astype(object)
    frame["category"] = frame.category.where(frame.category.notna(), of_set).map(_shown_category)
    failures = _failures(path, answers)
    warnings = [*failures, *_untimed(frame, "wall_s")]
    if frame.category.isna().any():
        warnings.append(
            f"{label}: the categories of its questions are not known here; name their set with "
            "--questions"
        )
    return Source(
        name=label,
        frame=frame,
        labels=(label,),
        asked={
            answer.question_id: max(len(choice.turns) for choice in answer.choices)
            for answer in answers
        },
        options={label: {"decoder": label}},
        complete=not failures,
        warnings=tuple(warnings),
        turns=tuple(_turns_of_answers(label, answers, categories)),
        questions={question_id: question.turns for question_id, question in known.items()},
    )


def _turns_of_answers(
    label: str, answers: Iterable[Answer], categories: Mapping[int, str]
) -> Iterable[Turn]:
    """The texts of an answer file as turns. What the file does not hold is empty, 0 or NaN."""
    for answer in answers:
        for index, choice in enumerate(answer.choices):
            for place, text in enumerate(choice.turns):
                failed = not choice.answered(place + 1)
                lengths = (
                    () if failed or not choice.accept_lengths else choice.accept_lengths[place]
                )
                yield Turn(
                    question_id=answer.question_id,
                    category=answer.category or categories.get(answer.question_id, ""),
                    decoder=label,
                    choice=index,
                    turn=place + 1,
                    temperature=math.nan,
                    seed=0,
                    prompt_tokens=0,
                    token_ids=[],
                    accept_lengths=list(lengths),
                    nodes=[],
                    prefill_s=math.nan,
                    decode_s=math.nan,
                    finish_reason="error" if failed else "unknown",
                    error="recorded as an error" if failed else None,
                    text=text,
                )


def _failures(path: Path, answers: Iterable[Answer]) -> list[str]:
    """Warnings of turns that are recorded as an error."""
    warnings = []
    for answer in answers:
        for choice in answer.choices:
            numbers = [
                column
                for column in (choice.steps, choice.tokens, choice.wall_s)
                if column is not None
            ]
            for place in range(len(choice.turns)):
                if choice.answered(place + 1):
                    continue
                are_copied = (
                    place > 0
                    and bool(numbers)
                    and all(column[place] == column[place - 1] for column in numbers)
                )
                copied = " with the numbers of the turn before" if are_copied else ""
                warnings.append(
                    f"{path.name}: question {answer.question_id}, turn {place + 1} is recorded as "
                    f"an error{copied}; it is left out"
                )
    return warnings


def _questions(asked: set[int], questions: str | None) -> dict[int, Question]:
    """Questions by id: of the set named `questions`, else of a published set that has all `asked`.

    A published set counts only where it is in the cache. Empty: there is none.
    """
    here = (name for name in SETS if fetched(name, QUESTIONS, download=False))
    for name in [questions] if questions else here:
        known = {question.question_id: question for question in load_questions(name).questions}
        if questions or asked <= known.keys():
            return known
    return {}
