"""The passages of a judge's reply that could be its verdict, and which of them is the best."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from llm_judge.verdict_forms import (
    ASPECT,
    FOR_ASPECT,
    GRADE_LABELS,
    OF,
    PREFERENCE_LABELS,
    SIDES,
    WORSE_THAN,
    Kind,
)

NEAR = 60  # Characters before a candidate that show what it is.
SENTENCE = 200  # Characters before a candidate in which its sentence is looked for.
_MOST_OBJECTS = 100  # Braces of a reply at which a JSON object is looked for.


def alone(text: str, kind: Kind) -> re.Match | None:
    """The verdict that makes up the whole text, brackets aside. None: the text holds more."""
    inside = re.sub(r"[\[\]]", "", text.strip("(). \n"))
    return kind.in_brackets.fullmatch(inside) if len(inside) <= NEAR else None


_OBJECT = re.compile(r"\{\s*[\"']")
_PYTHON_QUOTE = re.compile(r"(?<=[{\[,:\s])'|'(?=\s*[\],:}])")
_JSON = json.JSONDecoder(strict=False)  # Takes line breaks in strings.


def _objects(text: str, kind: Kind) -> Iterator[tuple[int, int, re.Match | None]]:
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


def _field(value: dict, kind: Kind) -> re.Match | None:
    """The field of a JSON object that is its verdict, maybe of an object in such a field."""
    fields = {str(key).strip().lower().replace(" ", "_"): each for key, each in value.items()}
    for key in kind.keys:
        inner = fields.get(key)
        found = _field(inner, kind) if isinstance(inner, dict) else alone(str(inner), kind)
        if found:
            return found
    return None


def last_line_of(text: str) -> tuple[int, int]:
    """Where the last line begins and ends that has a word or a number in it."""
    end = len(text)
    while True:
        start = text.rfind("\n", 0, end) + 1
        if start == 0 or any(map(str.isalnum, text[start:end])):
            return start, end
        end = start - 1


# With the scale that may follow: "[[4]]/5".
_DOUBLE = re.compile(
    rf"\[\s*\[(?P<inside>[^\[\]\n]{{1,60}})\]\s*\](?=(?P<scale>{OF}\d{{1,4}})?)", re.IGNORECASE
)
_NO_WORD = re.compile(r"[\W_]*")
_FEW_WORDS = re.compile(r"[\W_]*(?:[^\W\d_]+[\W_]+){0,4}")
_NO_WORD_AFTER = re.compile(r"[\W_]*(?:10[\W_]*)?")  # Or "/10".
_NOUNS = "|".join(
    rf"(?<![^\W\d_])(?:{labels.sure}|{labels.loose})(?![^\W\d_])"
    for labels in (GRADE_LABELS, PREFERENCE_LABELS)
)
# What ends the reach of a label: another label, a sentence, or a clause.
_LABEL_ENDS = (
    rf"{_NOUNS}|[.!?]\s|"
    r"\b(?:because|since|although|though|while|whereas|unlike|but)\b"
)
_ASPECT_BEFORE = re.compile(f"{ASPECT}$", re.IGNORECASE)
_LABEL_BEFORE = re.compile(
    rf"(?:(?P<aspect>{ASPECT})?(?:{_NOUNS})(?!{FOR_ASPECT})|{GRADE_LABELS.foreign}|"
    rf"{PREFERENCE_LABELS.foreign}|\b(?:rate|give|gave|award|assign|deserve|merit|better|prefer|"
    r"choose|conclu|therefore|all in all|final|gesamt))"
    rf"(?:(?!{_LABEL_ENDS})[^\[\]\n]){{0,40}}$",
    re.IGNORECASE,
)
_LINK_AFTER = (
    r"[ \t*_\"”']*(?:(?:is|was|seems|performs?)\s+)?(?:(?:[a-z]+ly|much|far|a bit|somewhat)\s+)?"
)
# What follows the better of two, or a verdict with its reason, and what follows the worse of two.
_WON = re.compile(
    r",?\s(?:because|since)\b|"
    rf"{_LINK_AFTER}(?:beats|outperforms|surpasses|exceeds|(?:better|superior|preferable|preferred|"
    r"stronger|wins)\b(?=[ \t*_]*(?:[.,;:!)\n]|$|(?:than(?! i\b)|to|because|since|as|overall)\b)))",
    re.IGNORECASE,
)
_LOST = re.compile(
    rf"{_LINK_AFTER}(?:{WORSE_THAN}|(?:worse|weaker|poorer|inferior|outperformed|surpassed|beaten|"
    r"not as [a-z]+ as|(?:not|no) (?:better|superior|preferable)|loses (?:to|against))\b)",
    re.IGNORECASE,
)
_QUOTE_OPENS = re.compile(r"[\"“„‘'«`「『][\w ]{0,20}:?[\s*]*$")
_QUOTE_CLOSES = re.compile(r"[.\s*]{0,3}[\"”“’'»`」』]")
# What ends an example: a sentence (no quotation opens after it), a clause, or a closing bracket.
_EXAMPLE_ENDS = (
    r"[.!?。](?!\w)(?!\s+[\"'`]|\s*[“„‘«「『])|;|\)|,\s+(?:so|thus|hence|therefore|but)\b"
)
_EXAMPLE_BEFORE = re.compile(
    r"(?:\be\.g\.|\bfor (?:example|instance)|\bsuch as|\bexample:|\bz\.\s?B\.|例如|例えば)"
    rf"(?:\([^()\n]{{0,25}}\)|(?!{_EXAMPLE_ENDS})[^\n]){{0,25}}$",
    re.IGNORECASE,
)

# A character of a remark about another answer. "But" ends it: "I would have liked sources, but it
# is a [[7]]".
_REMARK = r"(?:(?!\b(?:but|so|thus|hence|therefore|yet|still|overall)\b)[^\n.!?;])"
# Words around a verdict that the answer did not get: "to earn a [[9]]", "[[9]] would need".
_UNREACHED_BEFORE = re.compile(
    r"(?:^|[.!?\n][ \t]*)to (?:earn|get|reach|deserve|receive|merit|achieve)\b[^\n.!?]{0,30}$|"
    r"\b(?:could|might) (?:earn|get|reach|receive|achieve)\b[^\n.!?]{0,30}$|"
    r"(?:\b(?:would|could|might)|['’]d)(?: not| never| [a-z]+ly)? have\b(?! to\b)"
    rf"{_REMARK}{{0,40}}$",
    re.IGNORECASE,
)
_UNREACHED_AFTER = re.compile(
    r"[ \t*_\"”]{0,4}(?:(?:, )?if\b(?! (?:only|not|just)\b)|, had (?:it|the|there)\b|"
    r",?[^\n.!?]{0,30}(?<!\bi )\bwould (?:need|have|require)\b)",
    re.IGNORECASE,
)
# "With sources, I would rate it". Judges begin their real verdict with "if I had to choose, I
# would" and "with that in mind, I would".
_CONDITIONAL_BEFORE = re.compile(
    r"(?:^|[.!?:;\n]|\bbut\b|\band\b)[\W_]*(?:"
    r"with(?:out)?(?! (?:that|this|these|those|all|everything|both|the above)\b)|"
    r"if(?! (?:i|we|you|pressed|forced|asked)\b)|had|were|otherwise)\b"
    rf"{_REMARK}*(?:\bwould|['’]d)\b{_REMARK}{{0,40}}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Candidate:
    """A passage of `text` that could be the verdict."""

    text: str
    start: int
    end: int
    found: re.Match
    is_double: bool
    names_aspect: bool = False  # Its label names one aspect of the answer: "Style score".

    @property
    def before(self) -> str:
        return self.text[max(0, self.start - NEAR) : self.start]

    @property
    def is_example(self) -> bool:
        return bool(_EXAMPLE_BEFORE.search(self.before))

    @property
    def is_unreached(self) -> bool:
        """Whether it is a verdict for another answer: "a rating of [[9]] would need examples"."""
        return bool(
            _UNREACHED_BEFORE.search(self.before) or _UNREACHED_AFTER.match(self.text, self.end)
        )

    @property
    def is_conditional(self) -> bool:
        """Whether its sentence seems to be about another answer: "With sources, I would give"."""
        sentence = self.text[max(0, self.start - SENTENCE) : self.start]
        return bool(_CONDITIONAL_BEFORE.search(sentence))

    def is_beaten(self, kind: Kind) -> bool:
        """Whether it is the worse of two, or the end of a scale."""
        beaten = kind.beaten.search(self.before)
        is_loser = kind is SIDES and _LOST.match(self.text, self.end)
        return bool(beaten and beaten["beaten"]) or bool(is_loser)

    def _is_alone(self, before: re.Pattern) -> bool:
        """Whether its line has only `before` in front of it, and no word after it."""
        text = self.text
        start, end = text.rfind("\n", 0, self.start) + 1, text.find("\n", self.end)
        end = end if end >= 0 else len(text)
        if self.start - start > NEAR or end - self.end > NEAR:
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
        # No label is sure in a sentence about another answer.
        has_label = self.has_label and not self.is_conditional
        is_last = self.end > last_line and has_label and self._is_alone(_FEW_WORDS)
        is_sure = self.is_double and has_label and (is_last or not is_quoted)
        is_reached = not self.is_unreached
        return is_reached, is_sure, is_last, has_label + (not is_quoted), self.is_double, self.end


def candidates_in(text: str, kind: Kind) -> list[Candidate]:
    """All that may be verdicts.

    One with the label of an aspect counts where it is the only one.
    """
    found = list(_candidates(text, kind))
    return [each for each in found if len(found) == 1 or not each.names_aspect]


def _candidates(text: str, kind: Kind) -> Iterator[Candidate]:
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
        Candidate(text, start, end, found, is_double=False)
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


def _in_double_brackets(text: str, kind: Kind) -> Iterator[Candidate]:
    for found in _DOUBLE.finditer(text):
        inside = kind.in_brackets.fullmatch(found["inside"])
        if found["scale"]:
            start, end = found.start("inside"), found.end("scale")
            inside = kind.in_brackets.fullmatch(text, start, end) or inside
        if inside:
            yield Candidate(text, found.start(), found.end(), inside, is_double=True)


def _in_other_forms(text: str, kind: Kind) -> Iterator[Candidate]:
    """Verdicts with a label, in any brackets or none, and one that is the last line."""
    for form in kind.labelled:
        for found in form.finditer(text):
            before = text[max(0, found.start() - NEAR) : found.start()]
            names_aspect = bool(found.groupdict().get("noun") and _ASPECT_BEFORE.search(before))
            yield Candidate(
                text, found.start(), found.end(), found, is_double=False, names_aspect=names_aspect
            )
    start, end = last_line_of(text)
    if found := alone(text[start:end], kind):
        last_line = Candidate(text, start, end, found, is_double=False)
        if last_line.has_own_line:
            yield last_line
