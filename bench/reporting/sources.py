"""What a report compares, each as one thing: a run that `bench.run` wrote, or an answer file of anyone's.

    results/<run>           the folder of a run
    model_answer/m.jsonl    an answer file in one of the three dialects of `bench.store.answer_files`
    model_answer            a folder of answer files: all of them

Whatever is wrong with one but does not keep it from being shown is one of its `warnings`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from bench import metrics
from bench.store import answer_files
from bench.common.errors import UserError
from bench.common.files import shown
from bench.fetch import QUESTIONS, SETS, fetched
from bench.inputs.questions import Question, load_questions
from bench.store.records import Key, Turn, read_run, read_turns
from bench.store.trees import AnswerTrees, read_trees

# What a run is set to that tokens and times depend on, whatever the decoder.
CONDITIONS = (
    "temperature",
    "acceptance",
    "top_p",
    "posterior_threshold",
    "posterior_alpha",
    "max_new_tokens",
)


@dataclass(frozen=True, eq=False)
class Record:
    """What a run's folder holds, for what is written into it."""

    folder: Path
    run: dict  # run.json


@dataclass(frozen=True, eq=False)
class Source:
    """Turns that were generated together. `frame.decoder` holds labels: names that are unique in a report."""

    name: str
    frame: pd.DataFrame  # metrics.COLUMNS
    labels: tuple[str, ...]  # in the order in which they are shown
    asked: dict[int, int]  # turns of each question
    options: dict[
        str, dict
    ]  # of each label: its decoder's name, options, and what the whole run was set to
    environment: dict | None = None  # what the times depend on; None: not recorded
    conditions: dict | None = None  # of CONDITIONS, what the run was set to; None: not recorded
    complete: bool = True  # every turn was finished
    warnings: tuple[str, ...] = ()
    record: Record | None = None  # of a run
    turns: tuple[
        Turn, ...
    ] = ()  # what was said, failed turns too; of an answer file without the numbers
    trees: Mapping[Key, AnswerTrees] = field(default_factory=dict)  # recorded for some of the turns
    questions: Mapping[int, Sequence[str]] = field(
        default_factory=dict
    )  # what is asked, turn by turn, where that is known

    @property
    def baseline(self) -> str | None:
        """The label of its own greedy decoder."""
        return next(
            (label for label in self.labels if self.options[label]["decoder"] == metrics.BASELINE),
            None,
        )


class NoNumbers(UserError):
    """An answer file of texts alone, such as FastChat's own."""


def open_sources(path: Path, questions: str | None = None) -> tuple[list[Source], list[UserError]]:
    """What a path of the command line holds, and what is wrong with the part of it that cannot be shown.

    `questions` names the set that answer files answer, for its categories.
    """
    if (path / "run.json").exists():
        try:
            return [open_run(path)], []
        except UserError as error:
            opened, failed = _each_of(sorted((path / "answers").glob("*.jsonl")), questions)
            if not opened:
                return [], [error]
            said = (f"{error}; its answer files are shown instead",)
            return [replace(opened[0], warnings=said + opened[0].warnings), *opened[1:]], failed
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            said = f"{path} is neither a run's folder (it has no run.json) nor a folder of answer files (*.jsonl)"
            return [], [UserError(said)]
        return _each_of(files, questions)
    if not path.exists():
        return [], [UserError(f"{path} does not exist; expected a run's folder or an answer file")]
    return _each_of([path], questions)


def _each_of(files: Iterable[Path], questions: str | None) -> tuple[list[Source], list[UserError]]:
    opened, failed = [], []
    for file in files:
        try:
            opened.append(open_answers(file, questions))
        except UserError as error:
            failed.append(error)
    return opened, failed


def open_run(folder: Path) -> Source:
    """The run of a folder; UserError where it has no finished turn, or is not a run of this version."""
    run = read_run(folder)
    turns, warnings = read_turns(folder / "turns.jsonl")
    place = {question_id: at for at, question_id in enumerate(run["question_turns"])}
    turns.sort(
        key=lambda turn: (place.get(str(turn.question_id), 0), turn.key)
    )  # workers finish in any order
    decoders = run["config"]["decoders"]
    why = ""
    if others := sorted({turn.decoder for turn in turns} - set(decoders)):
        more = f" and {len(others) - 1} more decoders" if len(others) > 1 else ""
        why = f"{folder / 'turns.jsonl'} has turns of {shown(others[0])}{more}, which run.json does not name"
        warnings.append(f"{why}; they are left out")
        turns = [turn for turn in turns if turn.decoder in decoders]
    frame = metrics.frame(turns)
    if frame.empty:
        if failures := [turn.error for turn in turns if turn.failed]:
            why = f"{len(failures)} failed, first: {failures[0]}"
        raise UserError(f"{folder} has no finished turn" + (f"; {why}" if why else ""))
    asked = {int(question_id): count for question_id, count in run["question_turns"].items()}
    if strange := set(frame.question_id) - asked.keys():
        raise UserError(
            f"{folder / 'turns.jsonl'} has turns of question {min(strange)}, which this run does not ask"
        )
    wanted = sum(asked.values()) * run["config"]["num_choices"]
    finished = {decoder: int((frame.decoder == decoder).sum()) for decoder in decoders}
    if run.get("end") is None:
        warnings.append(
            f"{folder}: this run is in progress, or was interrupted; what is shown may change"
        )
    for decoder in decoders:
        if finished[decoder] < wanted:
            warnings.append(
                f"{folder}: {decoder}: {finished[decoder]} of {wanted} turns are finished; the others are in no number"
            )
    warnings += _untimed(frame, "decode_s")
    try:
        trees = read_trees(folder)
    except UserError as error:
        trees = {}
        warnings.append(f"{error}; the report is without trees")
    environments = [
        session["environment"]
        for session in run["sessions"]
        if isinstance(session.get("environment"), dict)
    ]
    if any(each != environments[0] for each in environments):
        warnings.append(
            f"{folder}: its sittings were on different machines or versions; its times do not compare"
        )
    return Source(
        name=folder.resolve().name,
        frame=frame,
        labels=tuple(decoder for decoder in decoders if finished[decoder]),
        asked=asked,
        options={decoder: _options(run["config"], decoder, frame) for decoder in decoders},
        environment=run["environment"],
        conditions={name: run["config"].get(name) for name in CONDITIONS},
        complete=all(count == wanted for count in finished.values()),
        warnings=tuple(warnings),
        record=Record(folder, run),
        turns=tuple(turns),
        trees=trees,
        questions={
            int(question_id): texts for question_id, texts in run.get("question_texts", {}).items()
        },
    )


def _options(config: Mapping, spec: str, frame: pd.DataFrame) -> dict:
    """The decoder's name and its options as far as they were given, and the run's temperature and acceptance.

    Where `nodes` was left to the decoder, it is the largest tree that was verified.
    """
    name, *given = spec.split(":")
    shared = {
        key: config[key]
        for key in ("nodes", "topk", "depth", "tree")
        if config.get(key) is not None
    }
    largest = max(
        (int(each.max(initial=0)) for each in frame[frame.decoder == spec].nodes), default=0
    )
    own = {"nodes": largest} | shared | dict(each.partition("=")[::2] for each in given)
    return {
        "decoder": name,
        **own,
        **{key: config.get(key) for key in ("temperature", "acceptance")},
    }


def open_answers(path: Path, questions: str | None = None) -> Source:
    """An answer file. Its categories are its own where its rows have them, else those of its question set.

    NoNumbers where it has texts alone, UserError where it is none.
    """
    read = answer_files.read_answers(path)
    ids = {answer.model_id for answer in read.values()}
    label = ids.pop() if len(ids) == 1 else ""
    label = label or path.stem
    frame = answer_files.frame(read.values()).assign(decoder=label)
    if frame.empty:
        raise NoNumbers(
            f"{path} has no numbers to report: its answers say neither how many tokens nor how many steps they took"
        )
    known = _questions(set(frame.question_id), questions)
    categories = {question_id: question.category for question_id, question in known.items()}
    frame["category"] = frame.category.where(
        frame.category.notna(), frame.question_id.map(categories).astype(object)
    )
    warnings = [*_failed(path, read), *_untimed(frame, "wall_s")]
    if frame.category.isna().any():
        warnings.append(
            f"{label}: the categories of its questions are not known here; name their set with --questions"
        )
    return Source(
        name=label,
        frame=frame,
        labels=(label,),
        asked={
            answer.question_id: max(len(choice.turns) for choice in answer.choices)
            for answer in read.values()
        },
        options={label: {"decoder": label}},
        complete=not _failed(path, read),
        warnings=tuple(warnings),
        turns=tuple(_turns(label, read.values(), categories)),
        questions={question_id: question.turns for question_id, question in known.items()},
    )


def _turns(
    label: str, read: Iterable[answer_files.Answer], categories: Mapping[int, str]
) -> Iterable[Turn]:
    """The texts of an answer file. Its numbers are in `frame`; here stands what the file does not say of a turn as unknown."""
    unknown = dict(
        temperature=math.nan, seed=0, prompt_tokens=0, token_ids=[], nodes=[], prefill_s=math.nan, decode_s=math.nan
    )  # fmt: skip
    for answer in read:
        category = answer.category or categories.get(answer.question_id, "")
        for index, choice in enumerate(answer.choices):
            for at, text in enumerate(choice.turns):
                failed = not choice.answered(at + 1)
                lengths = (
                    list(choice.accept_lengths[at]) if choice.accept_lengths and not failed else []
                )
                yield Turn(
                    answer.question_id, category, label, index, at + 1, **unknown, accept_lengths=lengths, text=text,
                    finish_reason="error" if failed else "unknown", error="recorded as an error" if failed else None,
                )  # fmt: skip


def _failed(path: Path, read: Mapping[int, answer_files.Answer]) -> list[str]:
    """What is said of turns that are recorded as an error."""
    said = []
    for answer in read.values():
        for choice in answer.choices:
            for turn in range(1, len(choice.turns) + 1):
                if choice.answered(turn):
                    continue
                at = turn - 1
                columns = [
                    each
                    for each in (choice.steps, choice.tokens, choice.wall_s)
                    if each is not None
                ]
                copied = (
                    at > 0 and bool(columns) and all(each[at] == each[at - 1] for each in columns)
                )
                said.append(
                    f"{path.name}: question {answer.question_id}, turn {turn} is recorded as an error"
                    + (" with the numbers of the turn before" if copied else "") + "; it is left out"
                )  # fmt: skip
    return said


def _untimed(frame: pd.DataFrame, seconds: str) -> list[str]:
    """What is said of turns that have no usable time, where others of the same decoder have one."""
    said = []
    for decoder, own in frame.groupby("decoder", sort=False):
        missing = own[own[seconds].isna()]
        if len(missing) and len(missing) < len(own):
            first = missing.iloc[0]
            said.append(
                f"{decoder}: {len(missing)} of {len(own)} turns have no usable time, first question {first.question_id}, "
                f"turn {first.turn}; they are in no time"
            )
    return said


def _questions(asked: set[int], questions: str | None) -> dict[int, Question]:
    """The questions by id: of the named set, else of a published one that is here already and has all of them."""
    for name in (
        [questions]
        if questions
        else [each for each in SETS if fetched(each, QUESTIONS, download=False)]
    ):
        known = {each.question_id: each for each in load_questions(name).questions}
        if questions or asked <= known.keys():
            return known
    return {}


def side_by_side(sources: Iterable[Source]) -> list[Source]:
    """The same sources with labels that are unique among all of them: a run's decoders after the run's name."""
    sources = list(sources)
    if len(sources) < 2:
        return sources
    made, taken = [], set()
    for source in sources:
        alone = source.labels == (source.name,)
        name, copy = source.name, 1
        while name in taken:  # two folders of one name
            copy += 1
            name = f"{source.name} ({copy})"
        taken.add(name)
        labels = {label: name if alone else f"{name}/{label}" for label in source.labels}
        made.append(
            replace(
                source,
                name=name,
                frame=source.frame.assign(decoder=source.frame.decoder.map(labels)),
                labels=tuple(labels.values()),
                options={labels[label]: source.options[label] for label in source.labels},
                turns=tuple(
                    replace(turn, decoder=labels[turn.decoder])
                    for turn in source.turns
                    if turn.decoder in labels
                ),
                trees={
                    (key[0], labels[key[1]], *key[2:]): replace(each, decoder=labels[key[1]])
                    for key, each in source.trees.items()
                    if key[1] in labels
                },
            )
        )
    return made


def set_differently(sources: Iterable[Source]) -> list[str]:
    """The conditions that are not the same in all sources where they are recorded, with what they are there."""
    known = [source.conditions for source in sources if source.conditions is not None]
    found = []
    for name in CONDITIONS:
        values = list(dict.fromkeys(each[name] for each in known))
        if len(values) > 1:
            found.append(
                f"{name} {', '.join('by category' if each is None else str(each) for each in values)}"
            )
    return found


def incomparable(sources: Iterable[Source]) -> list[str]:
    """Warnings where times, or the questions themselves, do not compare between sources."""
    sources = list(sources)
    said = []
    unknown = [source.name for source in sources if source.environment is None]
    known = [source for source in sources if source.environment is not None]
    if len(sources) > 1 and unknown:
        names = ", ".join(unknown) if len(unknown) < 4 else f"{len(unknown)} of these"
        said.append(
            f"what machine timed {names} is not recorded: compare times only where you know that it was the same; "
            "tokens per inference compare anyway"
        )
    for other in known[1:]:
        first = known[0]
        differences = [
            f"{name}: {first.environment.get(name)} in {first.name}, {other.environment.get(name)} in {other.name}"
            for name in sorted(first.environment.keys() | other.environment.keys())
            if first.environment.get(name) != other.environment.get(name)
        ]
        if differences:
            said.append(
                f"times do not compare, only tokens per inference: different machines or versions ({'; '.join(differences)})"
            )
    if differing := set_differently(sources):
        said.append(
            f"these runs were set differently, and none is said to lead: {'; '.join(differing)}"
        )
    for other in sources[1:]:
        if other.asked != sources[0].asked:
            said.append(
                f"{other.name} and {sources[0].name} answer different questions; only ratios of paired turns compare"
            )
    return said
