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
may cite a source. "Style score" names one aspect of the answer. It counts only where it is the only
candidate. A verdict that the answer did not get ("to earn a [[9]]") comes after all others. One
with a condition ("with sources, I would give it [[9]]") counts as one without a label. A JSON
object is one candidate, by its fields.

These are no candidates: an example ("such as [[5]]"), the worse one of two ("[[A]] is better than
[[B]]"), and all of several alternatives ("[[7]] to [[8]]").
"""

import re
import unicodedata

from llm_judge.thinking import outside_thinking
from llm_judge.verdict_candidates import alone, candidates_in, last_line_of
from llm_judge.verdict_forms import GRADES, SIDES, Kind

NO_GRADE = -1  # Score of a reply without a grade, as in FastChat. Averages leave it out.
NO_WINNER = "error"  # The winner where a reply names none, as in FastChat.

_LONGEST = 50_000  # Characters of a reply that are searched, from the end.


def grade(reply: str) -> int | float:
    """The grade that a reply gives. NO_GRADE where it gives none, or none from 1 to 10.

    >>> [grade(text) for text in ("Rating: [[7]]", "[7]", "[[3]]? No: [[8.5]]", "seven", "[[11]]")]
    [7, 7, 8.5, -1, -1]
    """
    found = _verdict(reply, GRADES)
    return NO_GRADE if found is None else found


def winner(reply: str, first: str, second: str) -> str:
    """The model that a reply prefers: `first` (shown as A), `second` (as B), "tie" or NO_WINNER."""
    models = {"A": first, "B": second, "tie": "tie"}
    return models.get(_verdict(reply, SIDES), NO_WINNER)


def _verdict(reply: str, kind: Kind) -> float | int | str | None:
    text = _plain(reply)
    if found := alone(text, kind):  # The reply is nothing else.
        return kind.read(found)
    own = _without_quotations(text, kind)
    candidates = candidates_in(own, kind)
    if not candidates:  # The whole reply may stand in a fence.
        own, candidates = text, [each for each in candidates_in(text, kind) if each.has_label]
    if not candidates:
        return None
    last_line, _ = last_line_of(own)
    return kind.read(max(candidates, key=lambda each: each.rank(last_line)).found)


_FENCE = re.compile(r"[ \t]*(```|~~~)")


def _without_quotations(text: str, kind: Kind) -> str:
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
            if inside[:1] != "{" and not alone(inside, kind):
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
