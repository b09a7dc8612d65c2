"""Whether sources compare: how they differ, in warnings, and their labels side by side.

Tokens compare where the same questions were asked of the same model with the same settings. Times
compare where also the machine is the same. What an answer file does not record is said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations

from bench.reporting.source import Source
from bench.store.question_id import QuestionId, in_order

NAMED = 3  # Sources that a warning names. More are counted.


def side_by_side(sources: Iterable[Source]) -> list[Source]:
    """The same sources with labels that are unique among all of them.

    The labels of several sources become run/decoder. Those of a single source stay as they are.
    """
    sources = list(sources)
    if len(sources) < 2:
        return sources
    made: list[Source] = []
    for source in sources:
        taken = {other.name for other in made}
        name, copy = source.name, 1
        while name in taken:  # Two folders of one name, or two answer files of one model.
            copy += 1
            name = f"{source.name} ({copy})"
        namesake = source.name if copy > 1 else None
        made.append(replace(_renamed(source, name), namesake=namesake))
    return made


def _renamed(source: Source, name: str) -> Source:
    """The same source under another name, which its labels begin with."""
    is_file = source.labels == (source.name,)
    labels = {label: name if is_file else f"{name}/{label}" for label in source.labels}
    turns = (turn for turn in source.turns if turn.decoder in labels)
    trees = (answer for answer in source.trees.values() if answer.decoder in labels)
    moved = [replace(answer, decoder=labels[answer.decoder]) for answer in trees]
    return replace(
        source,
        name=name,
        frame=source.frame.assign(decoder=source.frame.decoder.map(labels)),
        labels=tuple(labels.values()),
        options={labels[label]: source.options[label] for label in source.labels},
        turns=tuple(replace(turn, decoder=labels[turn.decoder]) for turn in turns),
        trees={answer.key: answer for answer in moved},
        differences=source.differences
        and tuple(
            each.model_copy(update={"decoder": labels[each.decoder]})
            for each in source.differences
            if each.decoder in labels
        ),
    )


# --- What differs ---------------------------------------------------------------------------------


def unlike(one: Source, other: Source) -> bool:
    """Whether the tokens of two sources do not compare. Unknown conditions count as the same."""
    is_unlike = bool(set_differently([one, other])) or asks_other_texts(one, other)
    return is_unlike or _other_temperature(one, other) is not None


def timed_alike(one: Source, other: Source) -> bool:
    """Whether the times of two sources are known to be of one machine."""
    has_moved = one.has_moved or other.has_moved
    return not has_moved and _machine(one) is not None and _machine(one) == _machine(other)


def _machine(source: Source) -> dict | None:
    """The machine, the versions, and the GPUs that the model lay on. None: not recorded."""
    if source.environment is None or source.run is None:
        return source.environment
    config = source.run.config.as_json()
    if config.get("device") != "balanced":
        return source.environment
    return source.environment | {
        "model on": "several GPUs",
        "gpus": config.get("gpus"),
        "max_gpu_memory": config.get("max_gpu_memory"),
    }


def swept_together(one: Source, other: Source) -> bool:
    """Whether two sources may be points of one line: alike but for what is swept, and timed alike.

    Where no machine is recorded, times may be those of one.
    """
    compared = [_without(source, ("temperature", "acceptance")) for source in (one, other)]
    is_one_machine = _machine(one) == _machine(other)
    return not unlike(*compared) and is_one_machine and one.asked == other.asked


def _without(source: Source, names: Sequence[str]) -> Source:
    """A source without some of its conditions."""
    known = source.conditions or {}
    left = {name: value for name, value in known.items() if name not in names}
    return replace(source, conditions=None if source.conditions is None else left)


def may_rank(source: Source, home: Source) -> bool:
    """Whether a decoder of one source may be said to be faster or slower than one of the other.

    Where nothing is recorded, it may: a warning says so first.
    """
    if source.is_mixed or home.is_mixed or source.has_moved or home.has_moved:
        return False
    is_recorded = source.environment is not None and home.environment is not None
    return not unlike(source, home) and (not is_recorded or timed_alike(source, home))


def set_differently(sources: Iterable[Source]) -> list[str]:
    """Conditions that differ between sources that record them: "temperature 0.0, 0.7"."""
    recorded = [source.conditions for source in sources if source.conditions is not None]
    names = dict.fromkeys(name for conditions in recorded for name in conditions)
    if all("model files" in conditions for conditions in recorded):
        names.pop("model", None)  # A model is the same under another name.
    differing = []
    for name in names:
        values = [conditions[name] for conditions in recorded if name in conditions]
        texts = list(dict.fromkeys(_in_words(name, value) for value in values))
        if len(texts) > 1:
            differing.append(f"{name} {', '.join(texts)}")
    return differing


def _in_words(name: str, value: object) -> str:
    """A setting. None is what --temperature and --template have where they are not given."""
    words = {"temperature": "by category", "template": "the model's own"}
    return words.get(name, "none") if value is None else str(value)


def asks_other_texts(one: Source, other: Source) -> bool:
    """Whether two runs ask different texts under the same question_id.

    Of older runs, which do not record the texts, the digests of the question files are compared.
    """
    if one.run is None or other.run is None:
        return False
    if one.questions and other.questions:
        shared = one.questions.keys() & other.questions.keys()
        return any(list(one.questions[each]) != list(other.questions[each]) for each in shared)
    digests = [source.run.questions.sha256 for source in (one, other)]
    return None not in digests and digests[0] != digests[1]


def _other_temperature(one: Source, other: Source) -> QuestionId | None:
    """A question that two runs of one setting answer at different temperatures. None: no question.

    A question's category may decide its temperature, and differ from file to file.
    """
    if one.run is None or other.run is None:
        return None
    if one.run.config.temperature != other.run.config.temperature:
        return None
    ours, theirs = (
        {turn.question_id: turn.temperature for turn in source.turns} for source in (one, other)
    )
    shared = sorted(ours.keys() & theirs.keys(), key=in_order)
    return next((each for each in shared if ours[each] != theirs[each]), None)


def incomparable(sources: Sequence[Source]) -> list[str]:
    """Warnings of all in which the sources differ."""
    first, *others = sources
    warnings = _namesakes(sources)
    if differing := set_differently(sources):
        warnings.append(
            f"these runs were set differently, and none is said to lead: {'; '.join(differing)}"
        )
    for one, other in combinations(sources, 2):
        if asks_other_texts(one, other):
            warnings.append(
                f"{other.name} and {one.name} ask other questions under the same numbers: they are "
                "not compared with each other, and none is said to lead"
            )
        if (question_id := _other_temperature(one, other)) is not None:
            warnings.append(
                f"{other.name} and {one.name} answer questions at different temperatures, as these "
                f"are in different categories (question {question_id}, ...): they are not compared "
                "with each other, and none is said to lead"
            )
    for other in others:
        if other.asked != first.asked:
            warnings.append(
                f"{other.name} and {first.name} answer different questions"
                f"{_example(first, other)}; only ratios of paired turns compare"
            )
    return warnings + _other_machines(sources) + _other_code(sources) + _not_recorded(sources)


def _namesakes(sources: Sequence[Source]) -> list[str]:
    """Which file or folder is which, where several have one name."""
    shared = dict.fromkeys(source.namesake for source in sources if source.namesake is not None)
    return [
        "; ".join(
            f"{source.name} is {source.path}"
            for source in sources
            if name in (source.name, source.namesake)
        )
        for name in shared
    ]


def _example(one: Source, other: Source) -> str:
    """A question that two sources answer in another number of turns. Empty: there is none."""
    for question_id in sorted(one.asked.keys() & other.asked.keys(), key=in_order):
        ours, theirs = one.asked[question_id], other.asked[question_id]
        if ours != theirs:
            turns = f"{ours} in {one.name}, {theirs} in {other.name}"
            return f" (turns of question {question_id}: {turns})"
    return ""


def _other_machines(sources: Sequence[Source]) -> list[str]:
    known = [(source, machine) for source in sources if (machine := _machine(source)) is not None]
    warnings = []
    for other, theirs in known[1:]:
        first, ours = known[0]
        differences = [
            f"{name}: {ours.get(name)} in {first.name}, {theirs.get(name)} in {other.name}"
            for name in sorted(ours.keys() | theirs.keys())
            if ours.get(name) != theirs.get(name)
        ]
        if differences:
            warnings.append(
                "times do not compare, only tokens per inference: different machines or versions "
                f"({'; '.join(differences)})"
            )
    return warnings


def _other_code(sources: Sequence[Source]) -> list[str]:
    """A warning where runs come from several commits. A difference may be one of the code."""
    codes = {source.name: source.run.codes for source in sources if source.run is not None}
    known = {name: ", ".join(code) for name, code in codes.items() if code}
    if len(set(known.values())) < 2:
        return []
    listed = "; ".join(f"{name}: {code}" for name, code in known.items())
    return [f"these runs are of different code, which may be what makes the difference ({listed})"]


def _not_recorded(sources: Sequence[Source]) -> list[str]:
    unknown = [source.name for source in sources if source.environment is None]
    if len(sources) < 2 or not unknown:
        return []
    names = ", ".join(unknown) if len(unknown) <= NAMED else f"{len(unknown)} of these"
    return [
        f"model, questions, settings and machine of {names} are not recorded: compare tokens only "
        "where you know that the first three were the same, and times only where all were"
    ]
