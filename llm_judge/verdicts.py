"""Verdicts in a judge's replies: a grade, or which of two answers is preferred.

The prompts ask for [[7]] or [[A]] at the end of the reply. Judges also think first, quote what they
were asked, cite sources, and write other forms: [[Rating: 8]], [[8/10]], **Rating:** 8, JSON,
full-width brackets and digits.

Thoughts are left out. What is left may hold several candidates. The verdict is the best of them, by
this order:

1. It stands outside code and quoted lines.
2. It stands in double brackets, has a label ("Rating:") or a line of its own, and is no quotation.
3. It has a label or a line of its own, and hardly a word beside it on the last line.
4. It has a label or a line of its own, and is no quotation; then one of the two; then neither.
5. It stands in double brackets.
6. It is the last one.

A verdict in single brackets, or in none, needs a label, or must stand alone on the last line: [3]
may cite a source. "Style score" and "score for style" are no labels, as they name one aspect of the
answer. A JSON object is one candidate, by its fields.

These are no candidates: an example ("such as [[5]]"), the worse one of two ("[[A]] is better than
[[B]]"), and all of several alternatives ("[[7]] to [[8]]").
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from llm_judge.thinking import outside_thinking

NO_GRADE = -1  # Score of a reply without a grade, as in FastChat. Averages leave it out.
NO_WINNER = "error"  # The winner where a reply names none, as in FastChat.
LOWEST_GRADE, HIGHEST_GRADE = 1, 10

_LONGEST = 50_000  # Characters of a reply that are searched, from the end.
_NEAR = 60  # Characters before a candidate that show what it is.
_MOST_OBJECTS = 100  # Braces of a reply at which a JSON object is looked for.

# --- Forms ----------------------------------------------------------------------------------------

_NUMBER = r"\d{1,3}(?:[.,]\d{1,20})?"
# "/10", "** out of 10", "]]/[[10"
_OF = r"[\s*_`\"'”$\])}]{0,8}(?:/|out of|of|von|sur|de)[\s*_\[]{0,8}"
_GRADE = (
    rf"(?P<number>{_NUMBER})(?:{_OF}(?P<scale>\d{{1,4}})(?:\.0)?)?"
    rf"(?P<range>\s*(?:-|–|—|~|to|or|and)\s*{_NUMBER}(?:\s*/\s*\d+)?)?"
    r"\s*(?:points?|pts|分|点|점)?"
)
_PREFERENCE = (
    r"(?:(?:assistant|model|response|answer|reply|option)[\s_]+)?"
    r"(?:(?P<tie>(?:a\s+)?(?:tie|draw)|equal|C|A\s*=\s*B|B\s*=\s*A)|(?P<side>[AB]))"
    r"(?:\s*>{1,2}\s*[AB]|\s+(?:is\s+)?(?:better|wins))?"
)
# Words beside a label of the whole answer: "my final score", "rating for the answer". With another
# word it may be the label of one aspect ("style score") or of something else ("correct result").
_PLAIN_WORD = (
    r"(?:a|an|the|this|that|my|our|your|its|i|would|will|is|as|at|of|and|with|so|thus|therefore|"
    r"final|overall|total|general|average|combined|numeric(?:al)?|single|fair|honest|reasonable|"
    r"appropriate|suggested|recommended|given|assigned|resulting|corresponding|following|revised|"
    r"adjusted|updated|clear|better|ultimate|quality|evaluation|assessment|judge|judge?ment|"
    r"solid|strong|perfect|high|low|assistant|model|answer|response|reply|output|solution|turn)\b"
)
# The word before a label where it is no plain one.
_ASPECT = rf"(?<![^\W\d_])(?<!['’])(?!{_PLAIN_WORD})[a-z]+(?:[*_]{{0,3}}[ \t]+|[_-])"
_FOR_ASPECT = rf"\s+for\s+(?!{_PLAIN_WORD})"


@dataclass(frozen=True)
class _Labels:
    """Words that name a verdict, as regular expressions.

    sure: as in "the score is 8". loose: those that also name a result in the answer, and so need a
    colon. foreign: those of other languages, before which any word may stand.
    """

    sure: str
    loose: str
    foreign: str


_GRADE_LABELS = _Labels(
    "ratings?|scores?|grades?|marks?",
    "result|overall|total",
    "评分|评级|得分|分数|打分|評価|評分|採点|スコア|点数|평점|점수|등급|"
    "bewertung|punktzahl|puntuaci[oó]n|calificaci[oó]n|nota|оценка|балл|"
    r"note(?=\s*:\s*\d[\d.,]*\s*/\s*10)",  # French. In English it is no label.
)
_PREFERENCE_LABELS = _Labels(
    "verdict|winner|choice|decision|preference|preferred",
    "result",
    "判定|勝者|判决|胜者|(?<=<)answer(?=>)",
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
    the worse of two, or before the end of a scale; only where its group `beaten` is found. keys:
    its field in JSON, the best name first. read: the verdict of a match; None where it is none,
    such as 7-8.
    """

    in_brackets: re.Pattern
    labelled: tuple[re.Pattern, ...]
    joined: re.Pattern
    beaten: re.Pattern
    keys: tuple[str, ...]
    read: Callable[[re.Match], float | int | str | None]


def _kind(
    value: str,
    labels: _Labels,
    others: tuple[str, ...],
    joined: str,
    beaten: str,
    keys: tuple[str, ...],
    read: Callable,
) -> _Kind:
    """value: the verdict itself, as a regular expression.

    others: further forms with a label, in which VALUE stands for the verdict.
    """
    word = r"[^\W\d_]+"
    # "Overall" and "total" may stand before another label, and before no other word.
    loose = rf"(?:{labels.loose})(?!\s+(?!{_PLAIN_WORD}|(?:{labels.sure})\b){word})"
    plain = rf"(?:{_PLAIN_WORD}\s+){{0,3}}(?:{labels.sure}|{loose}(?!{_MARKS}is\b))"
    name = rf"(?:{plain}|(?:{word}\s+){{0,3}}(?:{labels.foreign}))"
    named = rf"(?:{name}{_MARKS}(?:[:=]|\bis\b|\s)\s*)?"
    in_brackets = rf"{_MARKS}{named}{_MARKS}(?:\\boxed\{{)?{value}\}}?{_MARKS}[.!]?"
    # "Rating for the answer (1-10): ", "**Rating**: [", "[RESULT] ", "<score>"
    noun = rf"(?<![a-z])(?P<noun>{labels.sure}|(?P<loose>{loose}))"
    label = rf"(?:{noun}|(?<![a-zа-я])(?:{labels.foreign}))(?:(?!{_FOR_ASPECT})\s+{word}){{0,6}}"
    link = r"[\s*_`\"'\]>)]{0,8}(?:[:=]|(?<=[\]>])|(?(loose)(?!)|\b(?:is|of)\b))"
    opened = r"[\s*_`\"'“$\[({<]{0,8}(?:\\boxed\{)?"
    ended = r"(?=[ \t*_`\"'”$\])}>]*(?:[.,;:!?<(|\n–—-]|$))"
    # A heading with a label, and a line below it.
    heading = rf"^[ \t#*_]*{name}[ \t*_:]*\n\s*{opened}{value}"
    forms = [f"{label}{_SCALE}{link}{opened}{value}{ended}", rf"{heading}[ \t*_`$\])}}>.]*$"]
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


# Names of an object in JSON that holds the verdict, or all verdicts.
_WHOLE_KEYS = ("overall", "final", "result", "total", "evaluation", "assessment", "judgment")
_WORSE_THAN = r"\b(?:worse|weaker|poorer|less(?:\s+(?!better\b|more\b)[^\W\d_]+){1,3})\s+than\b"

_GRADES = _kind(
    _GRADE,
    _GRADE_LABELS,
    (_SAID_OF_TEN,),
    r"\s*(?:-|–|—|~|,?\s*(?:to|or|and))\s*",
    r"(?P<beaten>/|\bout of|\bnot(?: an?)?|\brather than|\binstead of)[\s*_]*$",
    (
        *("rating", "score", "grade", "overall_rating", "overall_score"),
        *("final_rating", "final_score", *_WHOLE_KEYS, "ratings", "scores"),
    ),
    _grade_of,
)
_SIDES = _kind(
    _PREFERENCE,
    _PREFERENCE_LABELS,
    (),
    r"\s*(?:/|,|=|&|,?\s*(?:or|and))\s*",
    rf"(?:{_WORSE_THAN}|(?P<beaten>>|\b(?:than|over|not|beats|outperforms|surpasses|exceeds|"
    r"instead of|against|vs\.?|(?:superior|preferable|preferred) to)))[\s*_\"“']*"
    r"(?:(?:assistant|model|answer|response)\s+)?$",
    (
        *("verdict", "winner", "preference", "preferred", "choice", "decision", "final_verdict"),
        *_WHOLE_KEYS,
    ),
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
    if found := _alone(text, kind):  # The reply is nothing else.
        return kind.read(found)
    own = _without_quotations(text, kind)
    candidates = list(_candidates(own, kind))
    if not candidates:  # The whole reply may stand in a fence.
        own, candidates = text, [each for each in _candidates(text, kind) if each.has_label]
    if not candidates:
        return None
    last_line, _ = _last_line(own)
    return kind.read(max(candidates, key=lambda each: each.rank(last_line)).found)


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


_OBJECT = re.compile(r"\{\s*[\"']")
_PYTHON_QUOTE = re.compile(r"(?<=[{\[,:\s])'|'(?=\s*[\],:}])")
_JSON = json.JSONDecoder(strict=False)  # Takes line breaks in strings.


def _objects(text: str, kind: _Kind) -> Iterator[tuple[int, int, re.Match | None]]:
    """The JSON objects in a text: where each begins and ends, and its verdict. None: it has none.

    A Python dict counts as one.
    """
    forms = text, _PYTHON_QUOTE.sub('"', text)
    end = 0
    for opening in islice(_OBJECT.finditer(text), _MOST_OBJECTS):
        if opening.start() < end:  # Inside the one before.
            continue
        for form in forms:
            try:
                value, end = _JSON.raw_decode(form, opening.start())
                yield opening.start(), end, _field(value, kind)
                break
            except (ValueError, RecursionError):
                continue


def _field(value: dict, kind: _Kind) -> re.Match | None:
    """The field of a JSON object that is its verdict, maybe of an object in such a field."""
    fields = {str(key).strip().lower().replace(" ", "_"): each for key, each in value.items()}
    for key in kind.keys:
        inner = fields.get(key)
        found = _field(inner, kind) if isinstance(inner, dict) else _alone(str(inner), kind)
        if found:
            return found
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

# With the scale that may follow: "[[4]]/5".
_DOUBLE = re.compile(
    rf"\[\s*\[(?P<inside>[^\[\]\n]{{1,60}})\]\s*\](?=(?P<scale>{_OF}\d{{1,4}})?)", re.IGNORECASE
)
_NO_WORD = re.compile(r"[\W_]*")
_FEW_WORDS = re.compile(r"[\W_]*(?:[^\W\d_]+[\W_]+){0,4}")
_NO_WORD_AFTER = re.compile(r"[\W_]*(?:10[\W_]*)?")  # Or "/10".
_NOUNS = "|".join(
    rf"(?<![^\W\d_])(?:{labels.sure}|{labels.loose})(?![^\W\d_])"
    for labels in (_GRADE_LABELS, _PREFERENCE_LABELS)
)
# What ends the reach of a label: another label, a sentence, or a clause.
_LABEL_ENDS = (
    rf"{_NOUNS}|[.!?]\s|"
    r"\b(?:because|since|although|though|while|whereas|unlike|but)\b"
)
_ASPECT_BEFORE = re.compile(f"{_ASPECT}$", re.IGNORECASE)
_LABEL_BEFORE = re.compile(
    rf"(?:(?P<aspect>{_ASPECT})?(?:{_NOUNS})(?!{_FOR_ASPECT})|{_GRADE_LABELS.foreign}|"
    rf"{_PREFERENCE_LABELS.foreign}|\b(?:rate|give|gave|award|assign|deserve|merit|better|prefer|"
    r"choose|conclu|therefore|all in all|final|gesamt))"
    rf"(?:(?!{_LABEL_ENDS})[^\[\]\n]){{0,40}}$",
    re.IGNORECASE,
)
_LINK_AFTER = (
    r"[\s*_\"”']*(?:(?:is|was|seems|performs?)\s+)?(?:(?:[a-z]+ly|much|far|a bit|somewhat)\s+)?"
)
# What follows the better of two, or a verdict with its reason, and what follows the worse of two.
_WON = re.compile(
    r",?\s(?:because|since)\b|"
    rf"{_LINK_AFTER}(?:beats|outperforms|surpasses|exceeds|(?:better|superior|preferable|preferred|"
    r"stronger|wins)\b(?=[ \t*_]*(?:[.,;:!)\n]|$|(?:than(?! i\b)|to|because|since|as|overall)\b)))",
    re.IGNORECASE,
)
_LOST = re.compile(
    rf"{_LINK_AFTER}(?:{_WORSE_THAN}|(?:worse|weaker|poorer|inferior|outperformed|surpassed|beaten|"
    r"not as [a-z]+ as|(?:not|no) (?:better|superior|preferable)|loses (?:to|against))\b)",
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
    def before(self) -> str:
        return self.text[max(0, self.start - _NEAR) : self.start]

    @property
    def is_example(self) -> bool:
        return bool(_EXAMPLE_BEFORE.search(self.before))

    def is_beaten(self, kind: _Kind) -> bool:
        """Whether it is the worse of two, or the end of a scale."""
        beaten = kind.beaten.search(self.before)
        return bool(beaten and beaten["beaten"]) or bool(_LOST.match(self.text, self.end))

    def _is_alone(self, before: re.Pattern) -> bool:
        """Whether its line has only `before` in front of it, and no word after it."""
        text = self.text
        start, end = text.rfind("\n", 0, self.start) + 1, text.find("\n", self.end)
        end = end if end >= 0 else len(text)
        if self.start - start > _NEAR or end - self.end > _NEAR:
            return False
        is_first = before.fullmatch(text, start, self.start)
        return bool(is_first and _NO_WORD_AFTER.fullmatch(text, self.end, end))

    @property
    def has_own_line(self) -> bool:
        """Whether it has a line of its own, below none that names one aspect: "## Style"."""
        line_above = self.before.rpartition("\n")[0].rstrip().rpartition("\n")[2]
        label = _LABEL_BEFORE.search(line_above)
        names_aspect = bool(label["aspect"]) if label else line_above.lstrip()[:1] == "#"
        return self._is_alone(_NO_WORD) and not names_aspect

    @property
    def has_label(self) -> bool:
        """Whether it has a label, a reason ("[[A]] because") or its own line, or is better."""
        label = _LABEL_BEFORE.search(self.before)
        is_labelled = not self.is_double or bool(label and not label["aspect"])
        return is_labelled or bool(_WON.match(self.text, self.end)) or self.has_own_line

    def rank(self, last_line: int) -> tuple:
        """Larger for a better candidate. last_line: where the last line begins."""
        is_quoted = bool(
            _QUOTE_OPENS.search(self.before) and _QUOTE_CLOSES.match(self.text, self.end)
        )
        has_label = self.has_label
        is_last = self.end > last_line and has_label and self._is_alone(_FEW_WORDS)
        is_sure = self.is_double and has_label and (is_last or not is_quoted)
        return is_sure, is_last, has_label + (not is_quoted), self.is_double, self.end


def _candidates(text: str, kind: _Kind) -> Iterator[_Candidate]:
    """All that may be verdicts. Of a JSON object only its field, or else double brackets in it."""
    objects = list(_objects(text, kind))
    double = [
        each
        for each in _in_double_brackets(text, kind)
        if not any(found and start <= each.start < end for start, end, found in objects)
    ]
    others = [
        each
        for each in _in_other_forms(text, kind)
        if not any(start <= each.start < end for start, end, _ in objects)
    ]
    others += [
        _Candidate(text, start, end, found, is_double=False)
        for start, end, found in objects
        if found
    ]
    joined: set[int] = set()  # Characters of candidates that are alternatives to each other.
    for one, other in pairwise(double):
        if kind.joined.fullmatch(text, one.end, other.start):
            joined.update(range(one.start, one.end), range(other.start, other.end))
    for each in (*double, *others):
        # A labelled one may be the first of two that are joined.
        is_joined = not joined.isdisjoint(range(each.start, each.end))
        if not (is_joined or each.is_example or each.is_beaten(kind)):
            yield each


def _in_double_brackets(text: str, kind: _Kind) -> Iterator[_Candidate]:
    for found in _DOUBLE.finditer(text):
        inside = kind.in_brackets.fullmatch(found["inside"])
        if found["scale"]:
            start, end = found.start("inside"), found.end("scale")
            inside = kind.in_brackets.fullmatch(text, start, end) or inside
        if inside:
            yield _Candidate(text, found.start(), found.end(), inside, is_double=True)


def _in_other_forms(text: str, kind: _Kind) -> Iterator[_Candidate]:
    """Verdicts with a label, in any brackets or none, and one that is the last line."""
    for form in kind.labelled:
        for found in form.finditer(text):
            each = _Candidate(text, found.start(), found.end(), found, is_double=False)
            if not (found.groupdict().get("noun") and _ASPECT_BEFORE.search(each.before)):
                yield each
    start, end = _last_line(text)
    if found := _alone(text[start:end], kind):
        last_line = _Candidate(text, start, end, found, is_double=False)
        if last_line.has_own_line:
            yield last_line
