"""Question sets in MT-Bench's format: one JSON object a line with question_id, category, turns [and reference].

A set is `sample` (shipped), one of those that `bench.fetch` knows, or any file in that format.
"""

import hashlib
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import parse_row, read_lines, shown
from bench.fetch import QUESTIONS, SETS, fetched

SAMPLE = "sample"
LONGEST_CATEGORY = 100  # characters: it stands in tables and under figures
SAMPLE_FOLDER = Path(str(files(__package__) / "sample"))


@dataclass(frozen=True)
class Question:
    question_id: int
    category: str
    turns: tuple[str, ...]  # what the user says, turn by turn
    reference: tuple[str, ...] = ()  # reference answers, where the set has them


@dataclass(frozen=True)
class QuestionSet:
    name: str
    sha256: str  # of the file
    questions: tuple[Question, ...]


def load_questions(name: str, limit: int | None = None, skip: int = 0) -> QuestionSet:
    """A set by name, or any file in that format; without the first `skip` questions, and at most `limit` of the rest.

    UserError names the file, the line and the field that is not as it must be.
    """
    path = question_file(name)
    digest = hashlib.sha256()
    questions: list[Question] = []
    seen: dict[int, int] = {}
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
    """The file of a set by name (fetched where it is a published one that is not here yet), or the file itself."""
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
            f"no questions at {name!r}: expected {known} or a .jsonl file in MT-Bench's format{hint}"
        )
    return path


def _parse(line: bytes, where: str) -> Question:
    row = parse_row(line, where)
    question_id = row.get("question_id")
    if type(question_id) is not int:
        raise UserError(f"{where}: question_id must be an integer, found {shown(question_id)}")
    if abs(question_id) >= 1 << 63:
        raise UserError(f"{where}: question_id must be below 2**63, found {shown(question_id)}")
    category = row.get("category")
    if not isinstance(category, str) or not 0 < len(category) <= LONGEST_CATEGORY:
        raise UserError(
            f"{where}: category must be a text of 1 to {LONGEST_CATEGORY} characters, found {shown(category)}"
        )
    turns, reference = row.get("turns"), row.get("reference") or ()
    if (
        not isinstance(turns, list)
        or not turns
        or not all(isinstance(turn, str) and turn.strip() for turn in turns)
    ):
        raise UserError(
            f"{where}: turns must be a non-empty list of non-empty texts, found {shown(turns)}"
        )
    if not isinstance(reference, (str, list, tuple)):
        raise UserError(
            f"{where}: reference must be a text or a list of texts, found {shown(reference)}"
        )
    reference = (reference,) if isinstance(reference, str) else tuple(map(str, reference))
    return Question(question_id, category, tuple(turns), reference)
