"""Verdicts in a judge's replies: a grade, or which of two answers is preferred.

The prompts ask for [[7]] or [[A]] at the end of the reply. Judges also think first, quote what they
were asked, cite sources, and write other forms: [[Rating: 8]], [[8/10]], **Rating:** 8, JSON,
full-width brackets and digits.

Thoughts are left out. What is left may hold several candidates. The verdict is the best of them, by
this order:

1. It stands outside code and quoted lines.
2. It stands alone on the last line.
3. It has a label ("Rating:") or a line of its own, and is no quotation; then one of the two; then
   neither.
4. It stands in double brackets.
5. It is the last one.

A verdict in single brackets, or in none, needs a label, or must stand alone on the last line: [3]
may cite a source. These are no candidates: an example ("such as [[5]]"), the worse one of two
("[[A]] is better than [[B]]"), and both of two alternatives ("[[7]] to [[8]]").
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

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
    r"(?:[\s*_]*(?:/|out of|of|von|sur|de)\s*(?P<scale>\d{1,4})(?:\.0)?)?"
    rf"(?P<range>\s*(?:-|–|—|~|to|or|and)\s*{_NUMBER}(?:\s*/\s*\d+)?)?"
    r"\s*(?:points?|pts|分|点|점)?"
)
_PREFERENCE = (
    r"(?:(?:assistant|model|response|answer|reply|option)[\s_]+)?"
    r"(?:(?P<tie>(?:a\s+)?(?:tie|draw)|equal|C|A\s*=\s*B|B\s*=\s*A)|(?P<side>[AB]))"
    r"(?:\s*>{1,2}\s*[AB]|\s+(?:is\s+)?(?:better|wins))?"
)
_GRADE_LABELS = (
    "ratings?|scores?|grades?|marks?|result|overall|total|评分|评级|得分|分数|打分|評価|評分|採点|"
    "スコア|点数|평점|점수|등급|bewertung|punktzahl|puntuaci[oó]n|calificaci[oó]n|nota|оценка|балл|"
    r"note(?=\s*:\s*\d[\d.,]*\s*/\s*10)"  # French. In English it is no label.
)
_PREFERENCE_LABELS = (
    "verdict|winner|choice|decision|preference|preferred|result|判定|勝者|判决|胜者|"
    "(?<=<)answer(?=>)"
)
_MARKS = r"[\s*_`\"'“”‘’$]*"  # Markup and quotation marks around a verdict.
# "(1-10)", "[1 to 10]", "on a scale of 1 to 10"
_SCALE = (
    r"(?:\s*\([^()\n]{0,30}\)|\s*\[[^\[\]\n]{0,30}\](?=\s*[:=])|"
    r"(?:\s+[^\W\d_]+){0,3}\s+1\s*(?:-|–|to)\s*10)?"
)
# "I would rate this response an 8 out of 10": with its scale alone, as other numbers are cited.
_SAID_OF_TEN = (
    r"\b(?:rate|give|award|assign|score|deserves?|earns?)\b(?:\s+[^\W\d_]+){0,6}\s+"
    r"(?=\**\d[\d.,]*\**\s*(?:/|out of)\s*\**10\b)\**VALUE(?!\d)"
)


@dataclass(frozen=True)
class _Kind:
    """How one kind of verdict is written.

    in_brackets: all that may stand between double brackets. labelled: the forms with a label, in
    any brackets. joined: what stands between two that are alternatives. beaten: what stands before
    the worse of two, or before the end of a scale. keys: its field in JSON, the best name first.
    read: the verdict of a match; None where it is none, such as 7-8.
    """

    in_brackets: re.Pattern
    labelled: tuple[re.Pattern, ...]
    joined: re.Pattern
    beaten: re.Pattern
    keys: tuple[str, ...]
    read: Callable[[re.Match], float | int | str | None]


def _kind(
    value: str,
    labels: str,
    others: tuple[str, ...],
    joined: str,
    beaten: str,
    keys: tuple[str, ...],
    read: Callable,
) -> _Kind:
    """value: the verdict itself, as a regular expression. labels: words that name it.

    others: further forms with a label, in which VALUE stands for the verdict.
    """
    named = rf"(?:(?:[^\W\d_]+\s+){{0,3}}(?:{labels}){_MARKS}(?:[:=]|\bis\b|\s)\s*)?"
    in_brackets = rf"{_MARKS}{named}{_MARKS}(?:\\boxed\{{)?{value}\}}?{_MARKS}[.!]?"
    # "Rating for the answer (1-10): ", "**Rating**: [", "[RESULT] ", "<score>"
    label = rf"(?<![a-zа-я])(?:{labels})(?:\s+[^\W\d_]+){{0,6}}{_SCALE}"
    link = r"[\s*_`\"'\]>)]{0,8}(?:[:=]|\bis\b|\bof\b|(?<=[\]>]))"
    opened = r"[\s*_`\"'“$\[({<]{0,8}(?:\\boxed\{)?"
    ended = r"(?=[ \t*_`\"'”$\])}>]*(?:[.,;:!?<(|\n–—-]|$))"
    # A heading with a label, and a line below it.
    heading = rf"^[ \t#*_]*(?:[^\W\d_]+[ \t]+){{0,3}}(?:{labels})[ \t*_:]*\n\s*{opened}{value}"
    forms = [f"{label}{link}{opened}{value}{ended}", rf"{heading}[ \t*_`$\])}}>.]*$"]
    forms += [form.replace("VALUE", value) for form in others]
    return _Kind(
        re.compile(in_brackets, re.IGNORECASE),
        tuple(re.compile(form, re.IGNORECASE | re.MULTILINE) for form in forms),
        re.compile(joined, re.IGNORECASE),
        re.compile(beaten, re.IGNORECASE),
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
    (_SAID_OF_TEN,),
    r"\s*(?:-|–|—|~|to|or|and)\s*",
    r"(?:/|\bout of|\bnot(?: an?)?|\brather than|\binstead of)[\s*_]*$",
    ("rating", "score", "grade", "overall_rating", "overall_score", "final_rating", "final_score"),
    _grade_of,
)
_SIDES = _kind(
    _PREFERENCE,
    _PREFERENCE_LABELS,
    (),
    r"\s*(?:/|,|=|&|or|and)\s*",
    r"(?:>|\b(?:than|over|not|beats|outperforms|instead of|against|vs\.?))[\s*_\"“']*"
    r"(?:(?:assistant|model|answer|response)\s+)?$",
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
    if found := _alone(text, kind):  # The reply is nothing else.
        return kind.read(found)
    own = _without_quotations(text, kind)
    candidates = list(_candidates(own, kind))
    if not candidates:  # The whole reply may stand in a fence.
        own, candidates = text, [each for each in _candidates(text, kind) if each.has_label]
    if candidates:
        last_line, _ = _last_line(own)
        return kind.read(max(candidates, key=lambda each: each.rank(last_line)).found)
    last_line = _last_line(text)
    alone = re.fullmatch(r"\W*\[([^\[\]]{1,30})\]\W*", text[slice(*last_line)])
    found = alone and kind.in_brackets.fullmatch(alone[1])
    return kind.read(found) if found else None


_FENCE = re.compile(r"[ \t]*(```|~~~)")


def _alone(text: str, kind: _Kind) -> re.Match | None:
    """The verdict that a text is, in brackets or not. None: it is something else, or longer."""
    inside = re.sub(r"[\[\]]", "", text.strip("(). \n"))
    return kind.in_brackets.fullmatch(inside) if len(inside) <= _NEAR else None


def _without_quotations(text: str, kind: _Kind) -> str:
    """The text with spaces for code between fences and for quoted lines ("> ...").

    A fence around a verdict, or around JSON, is no code.
    """

    lines = text.split("\n")
    fence = None  # The line that opens the code.
    for number, line in enumerate(lines):
        if line.lstrip()[:1] == ">":
            lines[number] = " " * len(line)
        elif _FENCE.match(line):
            if fence is None:
                fence = number
                continue
            inside = "\n".join(lines[fence + 1 : number]).strip()
            if inside[:1] != "{" and not _alone(inside, kind):
                lines[fence : number + 1] = [" " * len(each) for each in lines[fence : number + 1]]
            fence = None
    return "\n".join(lines)


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
    r"prefer|choose|conclu|therefore|all in all|final|gesamt)[^\[\]\n]{0,40}$",
    re.IGNORECASE,
)
_ANY_LABEL = re.compile(r"[^\W\d_][\s*_]*[:=][\s*_]*$")
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
    def before(self) -> str:
        return self.text[max(0, self.start - _NEAR) : self.start]

    @property
    def is_example(self) -> bool:
        return bool(_EXAMPLE_BEFORE.search(self.before))

    @property
    def _is_alone(self) -> bool:
        """Whether its line has but a few words before it, and none after it.

        It is not where these are the label of something else ("Creativity:").
        """
        start = self.text.rfind("\n", 0, self.start) + 1
        end = self.text.find("\n", self.end)
        after = self.text[self.end : end if end >= 0 else None]
        is_short = self.start - start <= _NEAR and len(after) <= _NEAR
        before = self.text[start : self.start]
        if not (is_short and _FEW_WORDS.fullmatch(before) and _NO_WORD.fullmatch(after)):
            return False
        return not _ANY_LABEL.search(before) or bool(_LABEL_BEFORE.search(before))

    @property
    def has_label(self) -> bool:
        """Whether it has a label, or a line of its own."""
        is_labelled = not self.is_double or bool(_LABEL_BEFORE.search(self.before))
        return is_labelled or self._is_alone

    def rank(self, last_line: int) -> tuple:
        """Larger for a better candidate. last_line: where the last line begins."""
        is_quoted = bool(
            _QUOTE_OPENS.search(self.before) and _QUOTE_CLOSES.match(self.text, self.end)
        )
        is_last = self._is_alone and self.start >= last_line
        return is_last, self.has_label + (not is_quoted), self.is_double, self.end


def _candidates(text: str, kind: _Kind) -> Iterator[_Candidate]:
    double = [
        _Candidate(text, found.start(), found.end(), inside, is_double=True)
        for found in _DOUBLE.finditer(text)
        if (inside := kind.in_brackets.fullmatch(found[1]))
    ]
    joined: set[int] = set()  # Characters of candidates that are alternatives to each other.
    for one, other in pairwise(double):
        if kind.joined.fullmatch(text, one.end, other.start):
            joined.update(range(one.start, one.end), range(other.start, other.end))
    labelled = [
        _Candidate(text, found.start(), found.end(), found, is_double=False)
        for form in kind.labelled
        for found in form.finditer(text)
    ]
    for each in (*double, *labelled):
        # A labelled one may be the first of two that are joined.
        is_joined = not joined.isdisjoint(range(each.start, each.end))
        if not (is_joined or each.is_example or kind.beaten.search(each.before)):
            yield each
