"""Judgment files: read as leniently as in FastChat.

A file may hold several judgments of one answer, by several judges or by several prompts. They are
all read. What they differ in is found by `differences`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.common.files import shown, sound_rows, tell_left_out
from bench.store.question_id import parse_question_id
from llm_judge.verdict_forms import HIGHEST_GRADE, LOWEST_GRADE
from llm_judge.verdicts import NO_GRADE, NO_WINNER, grade, winner

FAILED = "$ERROR$"  # The text that FastChat records for a call that failed. It is no judgment.
# The two calls of a pair, and which model is shown as A and as B.
GAMES = {"g1": ("model_1", "model_2"), "g2": ("model_2", "model_1")}

WINNERS = (*GAMES["g1"], "tie", NO_WINNER)  # Values of the fields g1_winner and g2_winner.

# The fields of rows, and their types.
_ALL = {"question_id": (int, str), "judge": (list, str), "turn": int}
_SINGLE = {"model": str, "score": (int, float, type(None)), "judgment": str}
_PAIR = {
    name: str
    for name in ("model_1", "model_2", "g1_winner", "g2_winner", "g1_judgment", "g2_judgment")
}


def read_judgments(path: Path, tell: Callable[[str], None] = warn) -> list[dict]:
    """The judgments of a file, in its order; see `judgment_rows`.

    Calls that FastChat recorded as failed are left out, so the list may be empty. UserError where
    every line is malformed.
    """
    problems: list[str] = []
    rows = [row for _, row in judgment_rows(path, problems.append)]
    if problems and not rows:
        raise UserError(problems[0])
    tell_left_out(path, problems, tell)
    return [row for row in rows if FAILED not in texts(row)]


def judgment_rows(path: Path, bad: Callable[[str], None]) -> Iterator[tuple[int, dict]]:
    """(line number, judgment) for every line of a file that is one, in one form:

    - `question_id` is an integer where the text of the file is one;
    - whole numbers that pandas wrote as 81.0 are integers;
    - a winner is one of WINNERS, also where the file has "Tie" or "model 1";
    - `judge` is [name, prompt name], the latter empty where the file has the name alone;
    - a score outside the scale becomes NO_GRADE;
    - where the score is null, NaN or NO_GRADE, or a winner is NO_WINNER, the reply's text is read
      again: an earlier version may have written the file, and could not read the text.

    bad: called with what is wrong about any other line.
    """
    for number, row in sound_rows(path, bad):
        where = f"{path}, line {number}"
        row |= {name: _whole(row[name]) for name in ("question_id", "turn") if name in row}
        try:
            check_fields(row, _ALL | (_SINGLE if is_single(row) else _PAIR), where)
            yield number, _in_one_form(row, where)
        except UserError as error:
            bad(str(error))


def check_fields(row: dict, kinds: dict[str, type | tuple], where: str) -> None:
    """UserError names the first field that is missing or of another type."""
    for name, kind in kinds.items():
        if name not in row:
            raise UserError(f"{where} is not a judgment: it has no {name!r}")
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise UserError(f"{where} is not a judgment: {name} is {shown(row[name])}")
        if isinstance(row[name], int) and abs(row[name]) >= 1 << 63:
            raise UserError(f"{where} is not a judgment: {name} is out of its range")


def _in_one_form(row: dict, where: str) -> dict:
    judge = [row["judge"], ""] if isinstance(row["judge"], str) else row["judge"]
    if len(judge) != 2 or not all(isinstance(each, str) for each in judge):
        raise UserError(f"{where}: judge must be [model, prompt name], found {shown(judge)}")
    question_id = row["question_id"]
    if isinstance(question_id, str):
        try:
            question_id = parse_question_id(question_id)
        except ValueError as error:
            raise UserError(f"{where} is not a judgment: {error}") from None
    row = row | {"question_id": question_id, "judge": judge}
    if is_single(row):
        return row | {"score": _score(row)}
    return row | {f"{game}_winner": _winner(row, game, where) for game in GAMES}


def _whole(value: object) -> object:
    """A whole number as an integer. Other values stay as they are."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _score(row: dict) -> int | float:
    score = row["score"]
    if score in (None, NO_GRADE) or math.isnan(score):
        return grade(row["judgment"])
    return score if LOWEST_GRADE <= score <= HIGHEST_GRADE else NO_GRADE


def _winner(row: dict, game: str, where: str) -> str:
    """The winner of a game, one of WINNERS."""
    stored = row[f"{game}_winner"]
    found = stored.strip().lower().replace(" ", "_")
    if found not in WINNERS:
        raise UserError(
            f"{where} is not a judgment: {game}_winner is {shown(stored)}, and none of "
            f"{', '.join(WINNERS)}"
        )
    return winner(row[f"{game}_judgment"], *GAMES[game]) if found == NO_WINNER else found


def is_single(row: dict) -> bool:
    """Whether a row grades one model. Every other row compares a `model_1` with a `model_2`.

    Programs that write both kinds into one table leave fields of the other kind empty.
    """
    return not isinstance(row.get("model_1"), str)


def key_of(row: dict) -> tuple:
    """What a judgment is about; equal to `Match.key`."""
    return row["question_id"], row["turn"], frozenset(models_of(row))


def models_of(row: dict) -> list[str]:
    """The models that a judgment is about: one, or two."""
    return [row["model"]] if is_single(row) else [row["model_1"], row["model_2"]]


def texts(row: dict) -> list[str]:
    """The judge's replies."""
    names = ["judgment"] if is_single(row) else [f"{game}_judgment" for game in GAMES]
    return [row[name] for name in names]


def asked(row: dict) -> set[str]:
    """The prompts that a row says were asked."""
    names = ("user_prompt", "g1_user_prompt", "g2_user_prompt")
    return {row[name] for name in names if isinstance(row.get(name), str)}


def has_verdict(row: dict) -> bool:
    """Whether the replies of a judgment could be read."""
    if is_single(row):
        return row["score"] != NO_GRADE
    return NO_WINNER not in (row["g1_winner"], row["g2_winner"])


def is_empty(row: dict) -> bool:
    """Whether a row holds no judgment: the call failed, or a reply is empty."""
    is_blank = not all(text.strip() for text in texts(row))
    return FAILED in texts(row) or (is_blank and not has_verdict(row))


# --- Differences ----------------------------------------------------------------------------------


def differences(rows: Sequence[dict]) -> list[str]:
    """Sentences about judgments of one judge that do not compare, or that are there repeatedly."""
    by_answer: dict[tuple, list[dict]] = {}
    for row in rows:
        by_answer.setdefault(key_of(row), []).append(row)
    repeated = [found for found in by_answer.values() if len(found) > 1]
    changed = [found for found in repeated if len({frozenset(asked(row)) for row in found}) > 1]
    said = _mixed(rows)
    for found, what in (
        (changed, "judged by several user prompts, or of several answers; the means mix them"),
        (repeated, "judged more than once; all of these judgments count"),
    ):
        if found:
            first = found[0][0]
            where = f"question {first['question_id']}, turn {first['turn']}"
            said.append(f"{len(found)} turns ({where}, ...) are {what}")
    return said


def _mixed(rows: Sequence[dict]) -> list[str]:
    """Sentences about prompts, prompt versions and temperatures that differ between the rows."""
    prompts: dict[tuple, set[str]] = {}  # Names, by question and turn.
    digests: dict[str, set[str]] = {}  # By name.
    users: dict[str, set[str]] = {}  # User prompts, by name.
    undigested: set[str] = set()  # Names of prompts in rows that have no digest.
    temperatures: set[str] = set()
    for row in rows:
        name = row["judge"][1]
        prompts.setdefault((row["question_id"], row["turn"]), set()).add(name)
        if "prompt_sha256" in row:
            digests.setdefault(name, set()).add(repr(row["prompt_sha256"]))
        else:
            undigested.add(name)
        users.setdefault(name, set()).update(filter(None, asked(row)))
        if "temperature" in row:
            temperatures.add(shown(row["temperature"]))
    several = [turn for turn, names in prompts.items() if len(names) > 1]
    versions = [name for name, found in digests.items() if len(found) > 1]
    versions += [name for name in undigested if _are_of_several(users[name])]
    said = []
    if several:
        question, turn = several[0]
        said.append(
            f"{len(several)} turns (question {question}, turn {turn}, ...) are judged by several "
            "prompts; the means mix them"
        )
    if versions:
        said.append(f"the prompt {versions[0]} is there in several versions; the means mix them")
    if len(temperatures) > 1:
        listed = ", ".join(sorted(temperatures))
        said.append(f"judgments were made at several temperatures ({listed}); the means mix them")
    return said


def _are_of_several(users: set[str]) -> bool:
    """Whether user prompts have neither the first nor the last character in common.

    A template usually begins or ends with text of its own, which all its prompts have.
    """
    return all(len({text[end] for text in users}) > 1 for end in (0, -1))


def misread(rows: Sequence[dict]) -> list[str]:
    """A sentence where a stored verdict differs from the one read from the reply's text."""
    other = [row for row in rows if has_verdict(row) and not _is_as_read(row)]
    if not other:
        return []
    first = other[0]
    where = f"question {first['question_id']}, turn {first['turn']}"
    return [
        f"{len(other)} judgments ({where}, ...) store another verdict than the text of the reply "
        "has; the stored one counts"
    ]


def _is_as_read(row: dict) -> bool:
    """Whether the verdicts of a judgment are those of its texts, as far as these can be read."""
    if is_single(row):
        return grade(row["judgment"]) in (row["score"], NO_GRADE)
    return all(
        winner(row[f"{game}_judgment"], *sides) in (row[f"{game}_winner"], NO_WINNER)
        for game, sides in GAMES.items()
    )
