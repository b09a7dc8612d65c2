"""Answer files of three dialects, read as one.

Every line is one answer: question_id, answer_id, model_id, choices[{index, turns, ...}], tstamp. What stands beside the
turns differs:

    FastChat     nothing
    MEDUSA       idxs, new_tokens, wall_time    a number a turn; idxs is the index of the last step: steps - 1
    Spec-Bench   decoding_steps, new_tokens, wall_time a turn, and accept_lengths of all steps, flat

Ours have all of these. `frame` gives the numbers to `bench.metrics`, which defines what is made of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import pandas as pd

from bench.common.errors import UserError
from bench.common.files import read_rows, shown
from bench.metrics import table

# What FastChat and MEDUSA write as an answer where there is none.
FAILED = ("ERROR", "$ERROR$")
LARGEST = 1e15  # of any count or time; sums of such are still exact


@dataclass(frozen=True)
class Choice:
    """One answer to all turns of a question. The numbers are None where the file has none."""

    turns: tuple[str, ...]
    steps: tuple[int, ...] | None = None  # verify forwards, a number a turn
    tokens: tuple[int, ...] | None = None  # committed tokens, a number a turn
    wall_s: tuple[float, ...] | None = None  # prefill included, a number a turn
    accept_lengths: tuple[tuple[int, ...], ...] | None = (
        None  # tokens committed by each step, a list a turn
    )

    def answered(self, turn: int) -> bool:
        """Whether there is an answer to `turn` (1-based) and to those before it."""
        return len(self.turns) >= turn and not any(text in FAILED for text in self.turns[:turn])


@dataclass(frozen=True)
class Answer:
    question_id: int
    model_id: str
    choices: tuple[Choice, ...]
    category: str | None = None  # Spec-Bench's rows have it


def read_answers(path: Path) -> dict[int, Answer]:
    """The answers of a file by question_id; UserError names the line that is no answer or answers a question again."""
    answers: dict[int, Answer] = {}
    lines: dict[int, int] = {}
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        try:
            answer = _answer(row)
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} is not an answer: {what}") from error
        again = lines.setdefault(answer.question_id, number)
        if again != number:
            raise UserError(
                f"{where} answers question {answer.question_id}, as line {again} does already; keep one of the two"
            )
        answers[answer.question_id] = answer
    if not answers:
        raise UserError(f"{path} has no answer in it")
    return answers


def _answer(row: dict) -> Answer:
    if type(row["question_id"]) is not int or abs(row["question_id"]) >= 1 << 63:
        raise ValueError(f"question_id is {shown(row['question_id'])}")
    if not isinstance(row["choices"], list) or not all(
        isinstance(choice, dict) for choice in row["choices"]
    ):
        raise ValueError("choices is not a list of objects")
    choices = tuple(map(_choice, row["choices"]))
    if not choices:
        raise ValueError("choices is empty")
    category = row.get("category")
    return Answer(
        row["question_id"],
        str(row.get("model_id", "")),
        choices,
        category if isinstance(category, str) else None,
    )


def _choice(row: dict) -> Choice:
    turns = row["turns"]
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        raise ValueError("turns is not a list of texts")

    def numbers(name: str, kind: type) -> tuple | None:
        values = row.get(name)
        if values is None or (values == [] and turns):
            return None
        if not isinstance(values, list) or not all(
            type(each) in (int, float) and each >= 0 for each in values
        ):
            raise ValueError(f"{name} is {shown(values)}, not a list of numbers >= 0")
        if len(values) != len(turns):
            raise ValueError(f"{name} has {len(values)} numbers for {len(turns)} turns")
        if any(abs(float(value)) > LARGEST for value in values):
            raise ValueError(f"{name} is {shown(values)}; no number there is that large")
        return tuple(map(kind, values))

    steps = numbers("decoding_steps", int)
    if steps is None:
        last = numbers("idxs", int)
        steps = tuple(index + 1 for index in last) if last is not None else None
    return Choice(
        tuple(turns),
        steps,
        numbers("new_tokens", int),
        numbers("wall_time", float),
        _by_turn(row.get("accept_lengths"), steps),
    )


def _by_turn(flat: object, steps: tuple[int, ...] | None) -> tuple[tuple[int, ...], ...] | None:
    """Accept lengths of all steps, cut into turns; None where there are none, or not one for each step.

    >>> _by_turn([3, 1, 2], (2, 1))
    ((3, 1), (2,))
    """
    if (
        not isinstance(flat, list)
        or steps is None
        or len(flat) != sum(steps)
        or not all(type(each) is int for each in flat)
    ):
        return None
    ends = list(accumulate(steps))
    return tuple(tuple(flat[end - count : end]) for end, count in zip(ends, steps, strict=True))


def frame(answers: Iterable[Answer]) -> pd.DataFrame:
    """One row a turn that was answered and has tokens and steps; without the split of wall_s, token ids and nodes."""
    return table(
        {
            "question_id": answer.question_id,
            "category": answer.category,
            "decoder": answer.model_id,
            "choice": index,
            "turn": turn + 1,
            "tokens": choice.tokens[turn],
            "steps": choice.steps[turn],
            "wall_s": choice.wall_s[turn] if choice.wall_s else None,
            "accept_lengths": np.array(choice.accept_lengths[turn], dtype=np.int32)
            if choice.accept_lengths
            else None,
        }
        for answer in answers
        for index, choice in enumerate(answer.choices)
        if choice.steps is not None and choice.tokens is not None
        for turn in range(len(choice.turns))
        if choice.answered(turn + 1)
    )
