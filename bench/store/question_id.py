"""What identifies a question: an integer, or a text that is no number, such as "81_DE"."""

import re
from collections.abc import Iterable, Sequence

from bench.common.files import shown

QuestionId = int | str
LIMIT = 1 << 63  # Every integer is smaller.
LONGEST = 100  # Characters of a text.
NAMED = 5  # Ids that a message names at most.
_NUMBER = re.compile(r"-?\d+")
_TEXT = re.compile(r"\w[\w ./:#+@=-]*")


def check_question_id(value: object) -> QuestionId:
    """The value itself. ValueError says why it identifies no question."""
    if type(value) is int:
        if abs(value) >= LIMIT:
            raise ValueError(f"question_id must be below 2**63, found {shown(value)}")
        return value
    if not isinstance(value, str) or not _is_text(value):
        raise ValueError(
            f"question_id must be an integer, found {shown(value)} (a text such as '81_DE' is "
            f"one, too: letters, digits and ./:#+@=- inside, at most {LONGEST} characters, and no "
            "number)"
        )
    return value


def _is_text(value: str) -> bool:
    is_path = ".." in value
    is_number = _NUMBER.fullmatch(value) is not None
    return len(value) <= LONGEST and bool(_TEXT.fullmatch(value)) and not (is_path or is_number)


def parse_question_id(text: str) -> QuestionId:
    """The question_id that a text stands for, such as a key of a JSON object.

    >>> parse_question_id("81"), parse_question_id("81_DE")
    (81, '81_DE')

    ValueError where it stands for none.
    """
    is_integer = len(text) <= len(str(LIMIT)) + 1 and _NUMBER.fullmatch(text)
    if is_integer and str(int(text)) == text:
        return check_question_id(int(text))
    return check_question_id(text)


def ranges(question_ids: Iterable[QuestionId]) -> str:
    """Question ids as a message lists them: in order, integers that follow each other as a range.

    >>> ranges([90, 81, "81_DE", 82, 83])
    '81-83, 90, 81_DE'
    """
    runs: list[list[QuestionId]] = []
    for each in sorted(question_ids, key=in_order):
        if runs and isinstance(each, int) and each == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], each]
        else:
            runs.append([each])
    return ", ".join("-".join(map(str, ends)) for ends in runs)


def first_few(question_ids: Sequence[QuestionId]) -> str:
    """The first question ids, as a message names them.

    >>> first_few([81, 82]), first_few(range(9))
    ('81, 82', '0, 1, 2, 3, 4, ...')
    """
    more = ", ..." if len(question_ids) > NAMED else ""
    return ", ".join(map(str, question_ids[:NAMED])) + more


def in_order(question_id: QuestionId) -> tuple[bool, QuestionId]:
    """A key to sort by: integers by value, then texts."""
    return isinstance(question_id, str), question_id
