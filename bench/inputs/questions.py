"""Question sets in MT-Bench's format: one JSON object a line.

Its fields are question_id, category, turns and, where there is one, reference. A turn is a text, or
an object with the text as its content, as in Arena-Hard. A set is `sample`, which is shipped, a
published set (`bench.inputs.published_sets`), or any file in this format.
"""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import read_lines, shown
from bench.common.strict_json import parse_row
from bench.inputs.published_sets import QUESTIONS, SETS, fetched
from bench.store.question_id import QuestionId, check_question_id
from bench.store.turn import LONGEST_CATEGORY, MOST_TURNS

SAMPLE = "sample"
SAMPLE_FOLDER = Path(str(files(__package__) / "sample"))
NO_CATEGORY = "none"  # The category of a question whose row has none.


@dataclass(frozen=True)
class Question:
    """One question, which may have several turns."""

    question_id: QuestionId
    category: str
    turns: tuple[str, ...]  # What the user says, turn by turn.
    reference: tuple[str, ...] = ()  # Reference answers, turn by turn. Empty: the set has none.


def normalised(category: str) -> str:
    """A category as rules know it.

    >>> normalised(" Math")
    'math'
    """
    return category.strip().casefold()


@dataclass(frozen=True)
class QuestionSet:
    """The questions of a file, or a part of them."""

    name: str
    sha256: str  # Digest of the whole file.
    questions: tuple[Question, ...]


def load_questions(name: str, limit: int | None = None, skip: int = 0) -> QuestionSet:
    """The questions of a set, or of a file in the format.

    name: of the set, or the path of the file.
    limit: the most questions to return, after the first `skip` are left out. None: all.

    UserError names the file, the line and the field that is wrong.
    """
    path = question_file(name)
    digest = hashlib.sha256()
    questions: list[Question] = []
    seen: dict[QuestionId, int] = {}
    for number, _, line in read_lines(path):
        digest.update(line)
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        question = _parse(line, where)
        if question.question_id in seen:
            first = seen[question.question_id]
            raise UserError(
                f"{where}: question_id {question.question_id} stands in line {first} already"
            )
        seen[question.question_id] = number
        questions.append(question)
    if not questions:
        raise UserError(f"{path} has no questions in it")
    chosen = tuple(questions[skip:][:limit])
    if not chosen:
        raise UserError(f"{path} has {len(questions)} questions, all of which are left out")
    name = SAMPLE if name == SAMPLE else path.parent.name if path.name == QUESTIONS else path.stem
    return QuestionSet(name, digest.hexdigest(), chosen)


def question_file(name: str) -> Path:
    """The path of a set's file. Any other name is a path itself.

    A published set that is not here yet is downloaded. UserError where there is no such file.
    """
    if name == SAMPLE:
        return SAMPLE_FOLDER / QUESTIONS
    if name in SETS:
        path = fetched(name, QUESTIONS)
        assert path is not None
        return path
    path = Path(name)
    if not path.is_file():
        near = get_close_matches(name, [SAMPLE, *SETS], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(map(repr, [SAMPLE, *SETS]))
        raise UserError(
            f"no questions at {name!r}: expected {known} or a .jsonl file in MT-Bench's format"
            f"{hint}"
        )
    return path


def _text_of(turn: object, where: str) -> object:
    """What a turn asks: its `content`, where it is a message. UserError where it is no user's."""
    if not isinstance(turn, dict):
        return turn
    if (role := turn.get("role", "user")) != "user":
        raise UserError(
            f"{where} has a turn of the role {shown(role)}; the turns of a question are the "
            "user's alone, as the model itself answers in between"
        )
    return turn.get("content")


def _parse(line: bytes, where: str) -> Question:
    """The question of a line. UserError says what is wrong; `where` names the file and the line."""
    row = parse_row(line, where)
    try:
        question_id = check_question_id(row.get("question_id"))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from None
    category = NO_CATEGORY if row.get("category") in (None, "") else row["category"]
    if not isinstance(category, str) or len(category) > LONGEST_CATEGORY:
        raise UserError(
            f"{where}: category must be a text of at most {LONGEST_CATEGORY} characters, found "
            f"{shown(category)}"
        )
    turns = row.get("turns")
    if isinstance(turns, list):
        turns = [_text_of(turn, where) for turn in turns]
    is_list = isinstance(turns, list) and len(turns) > 0
    if not is_list or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise UserError(
            f"{where}: turns must be a non-empty list of non-empty texts, found {shown(turns)}"
        )
    if len(turns) > MOST_TURNS:
        raise UserError(f"{where} has {len(turns)} turns; at most {MOST_TURNS} can be asked")
    reference = row.get("reference") or []
    if not isinstance(reference, (str, list)):
        raise UserError(
            f"{where}: reference must be a text or a list of texts, found {shown(reference)}"
        )
    references = [reference] if isinstance(reference, str) else map(str, reference)
    return Question(question_id, category, tuple(turns), tuple(references))
