"""Answer files: read in three dialects, written in one that holds all of them.

Every line is one answer: question_id, answer_id, model_id, choices[{index, turns, ...}], tstamp.
The dialects differ in the fields that a choice has besides `turns`:

    FastChat     none
    MEDUSA       idxs, new_tokens, wall_time: one number for each turn
    Spec-Bench   decoding_steps, new_tokens, wall_time: one number for each turn
                 accept_lengths: one flat list of all steps

`idxs` is the index of a turn's last step: steps - 1. `wall_time` includes the prefill.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, chain
from pathlib import Path

import shortuuid

from bench.common.errors import UserError, warn
from bench.common.files import (
    json_line,
    refuse_links,
    safe_name,
    shown,
    sound_rows,
    tell_left_out,
    write_atomically,
)
from bench.store.question_id import (
    QuestionId,
    check_question_id,
    first_few,
    parse_question_id,
)
from bench.store.run_record import Run
from bench.store.turn import MOST_TURNS, Turn
from decoders.spec import MOST_NODES

FAILED = ("ERROR", "$ERROR$")  # FastChat and MEDUSA write these in place of an answer.
LONGEST_LABEL = 200  # Characters of a model_id that are shown.
LARGEST = 1e15  # The largest count or time allowed. Sums of such numbers are still exact.
ANSWERS_FOLDER = "answers"  # The folder of the answer files in a run's folder.


@dataclass(frozen=True)
class Choice:
    """One answer to all turns of a question. The numbers are None where the file has none."""

    turns: tuple[str, ...]
    steps: tuple[int, ...] | None = None  # [turns] verify forwards.
    tokens: tuple[int, ...] | None = None  # [turns] committed tokens.
    wall_s: tuple[float, ...] | None = None  # [turns] prefill included. NaN: not known.
    # [turns][steps] tokens that each step committed.
    accept_lengths: tuple[tuple[int, ...], ...] | None = None
    lengths_unread: bool = False  # Whether the file has accept lengths that are not one a step.

    @cached_property
    def _finished(self) -> int:
        """How many turns there are before the first failed one."""
        failed = (index for index, text in enumerate(self.turns) if text in FAILED)
        return next(failed, len(self.turns))

    def answered(self, turn: int) -> bool:
        """Whether there is an answer to `turn` (1-based) and to all turns before it."""
        return turn <= self._finished


@dataclass(frozen=True)
class Answer:
    """One line of an answer file."""

    question_id: QuestionId
    model_id: str
    choices: tuple[Choice, ...]
    category: str | None = None  # Only Spec-Bench's rows have one.


# --- Reading --------------------------------------------------------------------------------------


def read_answers(path: Path, tell: Callable[[str], None] = warn) -> dict[QuestionId, Answer]:
    """The answers of a file by question_id. Of several answers to a question, the last one counts.

    tell: called with a message about lines that are no answers, which are left out, and about
        questions that are answered again.

    UserError where no line is an answer.
    """
    answers: dict[QuestionId, Answer] = {}
    problems: list[str] = []
    again: dict[QuestionId, None] = {}  # An ordered set.
    for number, row in sound_rows(path, problems.append):
        try:
            answer = _answer(row)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            problems.append(f"{path}, line {number} is not an answer: {what}")
            continue
        if answer.question_id in answers:
            again[answer.question_id] = None
        answers[answer.question_id] = answer
    if not answers:
        raise UserError(problems[0] if problems else f"{path} has no answer in it")
    tell_left_out(path, problems, tell)
    if again:
        tell(
            f"{path} answers {len(again)} questions more than once ({first_few(list(again))}); the "
            "last answer to each counts"
        )
    return answers


def _answer(row: dict) -> Answer:
    """KeyError, TypeError, ValueError, IndexError or OverflowError where a row is no answer."""
    question_id = _question_id(row["question_id"])
    rows = row["choices"]
    if not isinstance(rows, list) or not all(isinstance(choice, dict) for choice in rows):
        raise ValueError("choices is not a list of objects")
    choices = tuple(map(_choice, rows))
    if not choices:
        raise ValueError("choices is empty")
    category = row.get("category")
    return Answer(
        question_id,
        _label(row.get("model_id")),
        choices,
        category if isinstance(category, str) else None,
    )


def _question_id(value: object) -> QuestionId:
    """The question_id of a row. Other programs write 81 as "81", or as 81.0."""
    if isinstance(value, str):
        return parse_question_id(value)
    is_whole = isinstance(value, float) and value.is_integer()
    return check_question_id(int(value) if is_whole else value)


def _label(model_id: object) -> str:
    """A model_id as a text, empty for null. A long one is cut, and ends in its digest."""
    text = "" if model_id is None else str(model_id)
    if len(text) <= LONGEST_LABEL:
        return text
    return f"{text[:LONGEST_LABEL]}-{sha256(text.encode()).hexdigest()[:12]}"


def _choice(row: dict) -> Choice:
    turns = row["turns"]
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise ValueError("turns is not a list of texts")
    if len(turns) > MOST_TURNS:
        raise ValueError(f"a choice has {len(turns)} turns; at most {MOST_TURNS} are read")
    steps = _numbers(row, "decoding_steps", int)
    if steps is None:
        last = _numbers(row, "idxs", int)
        steps = tuple(index + 1 for index in last) if last is not None else None
    lengths = _by_turn(row.get("accept_lengths"), steps)
    return Choice(
        tuple(turns),
        steps,
        _numbers(row, "new_tokens", int),
        _numbers(row, "wall_time", float),
        lengths,
        lengths_unread=lengths is None and bool(row.get("accept_lengths")),
    )


def _numbers(row: dict, name: str, kind: type) -> tuple | None:
    """The field `name` of a choice: a number for each turn. None: the choice has no such field.

    Writers put null or NaN where they have no number. As a time it is NaN. As a count it is 0, and
    allowed only in a turn that failed.
    """
    values, turns = row.get(name), row["turns"]
    if values is None or (values == [] and turns):
        return None
    if not isinstance(values, list):
        raise ValueError(f"{name} is {shown(values)}, not a list of numbers >= 0")
    if len(values) != len(turns):
        raise ValueError(f"{name} has {len(values)} numbers for {len(turns)} turns")
    numbers = []
    for value, text in zip(values, turns, strict=True):
        if value is None or value != value:  # NaN differs from itself.
            value = math.nan if kind is float else 0 if text in FAILED else value
        elif type(value) in (int, float) and value > LARGEST:
            raise ValueError(f"{name} is {shown(values)}; no number there is that large")
        if type(value) not in (int, float) or value < 0:
            raise ValueError(f"{name} is {shown(values)}, not a list of numbers >= 0")
        if kind is int and not float(value).is_integer():
            raise ValueError(f"{name} is {shown(values)}, not a list of whole numbers >= 0")
        numbers.append(kind(value))
    return tuple(numbers)


def _by_turn(flat: object, steps: tuple[int, ...] | None) -> tuple[tuple[int, ...], ...] | None:
    """Accept lengths of all steps, cut into turns. None: there are none, or not one for each step.

    Some programs write a list for each turn.

    ValueError where a length is more than a step can commit.

    >>> _by_turn([3, 1, 2], (2, 1))
    ((3, 1), (2,))
    """
    if not isinstance(flat, list) or steps is None:
        return None
    if all(isinstance(each, list) for each in flat) and list(map(len, flat)) == list(steps):
        flat = list(chain.from_iterable(flat))
    if len(flat) != sum(steps):
        return None
    if not all(type(length) is int for length in flat):
        return None
    # A step commits a path of its tree, and so no more tokens than a tree has nodes. The report
    # warns of wrong numbers below this limit.
    wrong = next((length for length in flat if abs(length) > MOST_NODES), None)
    if wrong is not None:
        raise ValueError(f"accept_lengths has {shown(wrong)}; a step commits 1 to {MOST_NODES}")
    ends = list(accumulate(steps))
    return tuple(tuple(flat[end - count : end]) for end, count in zip(ends, steps, strict=True))


# --- Writing --------------------------------------------------------------------------------------


def model_id(run: Run, decoder: str) -> str:
    """The name of one decoder's answers: model and decoder, safe as a file name."""
    return safe_name(f"{run.model.name}-{decoder}")


def write_answers(folder: Path, run: Run, turns: Sequence[Turn]) -> None:
    """Write answers/<model_id>.jsonl for each decoder of a run. OSError where that fails."""
    refuse_links([folder / ANSWERS_FOLDER])
    (folder / ANSWERS_FOLDER).mkdir(exist_ok=True)
    for decoder in run.config.labels:
        name = model_id(run, decoder)
        lines = map(json_line, answer_rows(run, turns, decoder, name))
        write_atomically(folder / ANSWERS_FOLDER / f"{name}.jsonl", "".join(lines))


def answer_rows(run: Run, turns: Iterable[Turn], decoder: str, name: str) -> list[dict]:
    """The rows of one decoder's answer file, by question_id, as answers of model `name`.

    A question has a row when all turns of all its choices are finished. A failed turn is never
    written as an answer. UserError where the run does not ask a turn's question.
    """
    finished = [turn for turn in turns if turn.decoder == decoder and not turn.failed]
    by_question: dict[QuestionId, dict[int, list[Turn]]] = {}
    for turn in sorted(finished, key=lambda turn: turn.sort_key):
        by_question.setdefault(turn.question_id, {}).setdefault(turn.choice, []).append(turn)
    rows = []
    for question_id, choices in by_question.items():
        asked = run.question_turns.get(question_id)
        if asked is None:
            raise UserError(
                f"there are turns of question {question_id}, which the run.json beside them does "
                "not ask"
            )
        has_all_turns = all(len(turns) >= asked for turns in choices.values())
        if len(choices) < run.config.num_choices or not has_all_turns:
            continue
        rows.append(
            {
                "question_id": question_id,
                # The same id whenever the row is made again.
                "answer_id": shortuuid.uuid(f"{run.start}/{name}/{question_id}"),
                "model_id": name,
                "choices": [_choice_row(index, turns) for index, turns in choices.items()],
                "tstamp": run.start_unix,
            }
        )
    return rows


def _choice_row(index: int, turns: list[Turn]) -> dict:
    return {
        "index": index,
        "turns": [turn.text for turn in turns],
        "idxs": [len(turn.accept_lengths) - 1 for turn in turns],
        "new_tokens": [len(turn.token_ids) for turn in turns],
        "wall_time": [turn.prefill_s + turn.decode_s for turn in turns],
        "decoding_steps": [len(turn.accept_lengths) for turn in turns],
        "accept_lengths": [length for turn in turns for length in turn.accept_lengths],
    }
