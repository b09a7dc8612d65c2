"""Verdicts in a judge's replies: a grade, or which of two answers is preferred.

The prompts ask for [[7]] or [[A]] at the end of the reply. Judges also think first, quote what they
were asked, cite sources, and write other forms: [[Rating: 8]], [[8/10]], **Rating:** 8, JSON,
full-width brackets and digits.

Thoughts are left out. What is left may hold several candidates. The verdict is the best of them, by
this order:

1. It stands alone on the last line.
2. It has a label ("Rating:") or a line of its own, and is no quotation; then one of the two; then
   neither.
3. It stands in double brackets.
4. It is the last one.

A verdict in single brackets, or in none, needs a label: [3] may cite a source. An example ("such as
[[5]]") is never a candidate.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.common.strict_json import parse_json
from llm_judge.thinking import outside_thinking

NO_GRADE = -1  # Score of a reply without a grade, as in FastChat. Averages leave it out.
NO_WINNER = "error"  # The winner where a reply names none, as in FastChat.
LOWEST_GRADE, HIGHEST_GRADE = 1, 10

_LONGEST = 50_000  # Characters of a reply that are searched, from the end.
_NEAR = 60  # Characters before a candidate that show what it is.

# --- Forms ----------------------------------------------------------------------------------------

_NUMBER = r"\d{1,3}(?:[.,]\d{1,20})?"
_GRADE = (
    rf"(?P<number>{_NUMBER})"
    r"(?:\s*(?:/|out of|of|von|sur|de)\s*(?P<scale>\d{1,4})(?:\.0)?)?"
    rf"(?P<range>\s*(?:-|–|—|~|to|or|and)\s*{_NUMBER}(?:\s*/\s*\d+)?)?"
    r"\s*(?:points?|pts|分|点|점)?"
)
_PREFERENCE = (
    r"(?:(?:assistant|model|response|answer|reply|option)\s+)?"
    r"(?:(?P<tie>(?:a\s+)?tie|draw|equal|C|A\s*=\s*B|B\s*=\s*A)|(?P<side>[AB]))"
    r"(?:\s*>{1,2}\s*[AB]|\s+(?:is\s+)?(?:better|wins))?"
)
_GRADE_LABELS = (
    "ratings?|scores?|grades?|marks?|result|overall|total|评分|评级|得分|分数|打分|評価|評分|採点|"
    "スコア|点数|평점|점수|등급|bewertung|punktzahl|puntuaci[oó]n|calificaci[oó]n|nota|оценка|балл"
)
_PREFERENCE_LABELS = (
    "verdict|winner|choice|decision|preference|preferred|result|判定|勝者|判决|胜者"
)
_MARKS = r"[\s*_`\"'“”‘’$]*"  # Markup and quotation marks around a verdict.


@dataclass(frozen=True)
class _Kind:
    """How one kind of verdict is written.

    in_brackets: all that may stand between double brackets. labelled: the form with a label, in any
    brackets. keys: its field in JSON, the best name first. read: the verdict of a match; None where
    it is none, such as 7-8.
    """

    in_brackets: re.Pattern
    labelled: re.Pattern
    keys: tuple[str, ...]
    read: Callable[[re.Match], float | int | str | None]


def _kind(value: str, labels: str, keys: tuple[str, ...], read: Callable) -> _Kind:
    """value: the verdict itself, as a regular expression. labels: words that name it."""
    named = rf"(?:(?:[^\W\d_]+\s+){{0,3}}(?:{labels}){_MARKS}(?:[:=]|\bis\b|\s)\s*)?"
    in_brackets = rf"{_MARKS}{named}{_MARKS}(?:\\boxed\{{)?{value}\}}?{_MARKS}[.!]?"
    # "Rating for the answer (1-10): ", "**Rating**: [", "[RESULT] ", "<score>"
    label = rf"(?<![a-zа-я])(?:{labels})(?:\s+[^\W\d_]+){{0,6}}(?:\s*\([^()\n]{{0,30}}\))?"
    link = r"[\s*_`\"'\]>)]{0,8}(?:[:=]|\bis\b|\bof\b|(?<=[\]>]))"
    opened = r"[\s*_`\"'“$\[({<]{0,8}(?:\\boxed\{)?"
    ended = r"(?=[ \t*_`\"'”$\])}>]*(?:[.,;:!?<(|\n–—-]|$))"
    return _Kind(
        re.compile(in_brackets, re.IGNORECASE),
        re.compile(f"{label}{link}{opened}{value}{ended}", re.IGNORECASE),
        keys,
        read,
    )


def _grade_of(found: re.Match) -> int | float | None:
    if found["range"] or int(found["scale"] or HIGHEST_GRADE) != HIGHEST_GRADE:
        return None
    number = found["number"].replace(",", ".")
    value = float(number) if "." in number else int(number)
    return value if LOWEST_GRADE <= value <= HIGHEST_GRADE else None


def _side_of(found: re.Match) -> str:
    return "tie" if found["tie"] else found["side"].upper()


_GRADES = _kind(
    _GRADE,
    _GRADE_LABELS,
    ("rating", "score", "grade", "overall_rating", "overall_score", "final_rating", "final_score"),
    _grade_of,
)
_SIDES = _kind(
    _PREFERENCE,
    _PREFERENCE_LABELS,
    ("verdict", "winner", "preference", "preferred", "choice", "decision", "final_verdict"),
    _side_of,
)

# --- Verdicts -------------------------------------------------------------------------------------


def grade(reply: str) -> int | float:
    """The grade that a reply gives. NO_GRADE where it gives none, or none from 1 to 10.

    >>> [grade(text) for text in ("Rating: [[7]]", "[7]", "[[3]]? No: [[8.5]]", "seven", "[[11]]")]
    [7, 7, 8.5, -1, -1]
    """
    found = _verdict(reply, _GRADES)
    return NO_GRADE if found is None else found


def winner(reply: str, first: str, second: str) -> str:
    """The model that a reply prefers: `first` (shown as A), `second` (as B), "tie" or NO_WINNER."""
    models = {"A": first, "B": second, "tie": "tie"}
    return models.get(_verdict(reply, _SIDES), NO_WINNER)


def _verdict(reply: str, kind: _Kind) -> float | int | str | None:
    text = _plain(reply)
    if (found := _of_json(text, kind)) is not None:
        return found
    last_line = _last_line(text)
    candidates = [each for each in _candidates(text, kind) if not each.is_example]
    if candidates:
        return kind.read(max(candidates, key=lambda each: each.rank(last_line[0])).found)
    alone = re.fullmatch(r"\W*\[([^\[\]]{1,30})\]\W*", text[slice(*last_line)])
    found = alone and kind.in_brackets.fullmatch(alone[1])
    return kind.read(found) if found else None


# Brackets that NFKC does not make square ones.
_BRACKETS = str.maketrans(
    {"【": "[", "】": "]", "〔": "[", "〕": "]", "〖": "[", "〗": "]"}
    | {"⟦": "[[", "⟧": "]]", "〚": "[[", "〛": "]]"}
)
_ESCAPED = re.compile(r"\\([\[\]*_])")  # Characters that Markdown escapes.


def _plain(reply: str) -> str:
    """The reply without thoughts, with the usual characters for digits and brackets."""
    text = unicodedata.normalize("NFKC", outside_thinking(reply)[-_LONGEST:])
    return _ESCAPED.sub(r"\1", text.translate(_BRACKETS))


def _of_json(text: str, kind: _Kind) -> float | int | str | None:
    """The verdict of a reply that is a JSON object, maybe in a Markdown fence. None: it is none."""
    fenced = re.fullmatch(r"\s*```\w*\n(.*)\n\s*```\s*", text, re.DOTALL)
    try:
        value = parse_json((fenced[1] if fenced else text).encode(), nan=True)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    fields = {str(key).strip().lower().replace(" ", "_"): each for key, each in value.items()}
    for key in kind.keys:
        value = fields.get(key)
        while isinstance(value, list) and len(value) == 1:  # [[8]] is JSON, too.
            value = value[0]
        is_plain = isinstance(value, (str, int, float))
        found = kind.in_brackets.fullmatch(str(value).strip("[]")) if is_plain else None
        if found:
            return kind.read(found)
    return None


def _last_line(text: str) -> tuple[int, int]:
    """Where the last line begins and ends that has a word or a number in it."""
    end = len(text)
    while True:
        start = text.rfind("\n", 0, end) + 1
        if start == 0 or any(map(str.isalnum, text[start:end])):
            return start, end
        end = start - 1


# --- Candidates -----------------------------------------------------------------------------------

_DOUBLE = re.compile(r"\[\s*\[([^\[\]\n]{1,60})\]\s*\]")
_FEW_WORDS = re.compile(r"[\W_]*(?:[^\W\d_]+[\W_]+){0,4}")
_NO_WORD = re.compile(r"[\W_]*(?:10[\W_]*)?")  # Or "/10".
_LABEL_BEFORE = re.compile(
    rf"(?:{_GRADE_LABELS}|{_PREFERENCE_LABELS}|rate|give|gave|award|assign|deserve|merit|better|"
    r"prefer|choose|conclu|therefore|all in all)[^\[\]\n]{0,40}$",
    re.IGNORECASE,
)
_QUOTE_OPENS = re.compile(r"[\"“„‘'«`「『][\w ]{0,20}:?[\s*]*$")
_QUOTE_CLOSES = re.compile(r"[.\s*]{0,3}[\"”“’'»`」』]")
_EXAMPLE_BEFORE = re.compile(
    r"(?:\be\.g\.|\bfor (?:example|instance)|\bsuch as|\bexample:|\bz\.\s?B\.|例如|例えば)"
    r"[^\n]{0,25}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Candidate:
    """A passage of `text` that could be the verdict."""

    text: str
    start: int
    end: int
    found: re.Match
    is_double: bool

    @property
    def _before(self) -> str:
        return self.text[max(0, self.start - _NEAR) : self.start]

    @property
    def is_example(self) -> bool:
        return bool(_EXAMPLE_BEFORE.search(self._before))

    @property
    def _is_alone(self) -> bool:
        """Whether its line has but a few words before it, and none after it."""
        start = self.text.rfind("\n", 0, self.start) + 1
        end = self.text.find("\n", self.end)
        after = self.text[self.end : end if end >= 0 else None]
        is_short = self.start - start <= _NEAR and len(after) <= _NEAR
        before = self.text[start : self.start]
        return bool(is_short and _FEW_WORDS.fullmatch(before) and _NO_WORD.fullmatch(after))

    def rank(self, last_line: int) -> tuple:
        """Larger for a better candidate. last_line: where the last line begins."""
        alone = self._is_alone
        has_label = alone or not self.is_double or bool(_LABEL_BEFORE.search(self._before))
        is_quoted = bool(
            _QUOTE_OPENS.search(self._before) and _QUOTE_CLOSES.match(self.text, self.end)
        )
        is_last = alone and self.start >= last_line
        return is_last, has_label + (not is_quoted), self.is_double, self.end


def _candidates(text: str, kind: _Kind) -> Iterator[_Candidate]:
    for found in _DOUBLE.finditer(text):
        if inside := kind.in_brackets.fullmatch(found[1]):
            yield _Candidate(text, found.start(), found.end(), inside, is_double=True)
    for found in kind.labelled.finditer(text):
        yield _Candidate(text, found.start(), found.end(), found, is_double=False)
