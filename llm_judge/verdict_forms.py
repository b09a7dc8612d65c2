"""How grades and preferences are written in a judge's reply, as regular expressions."""

import re
from collections.abc import Callable
from dataclasses import dataclass

LOWEST_GRADE, HIGHEST_GRADE = 1, 10

_NUMBER = r"\d{1,3}(?:[.,]\d{1,20})?"
# "/10", "** out of 10", "]]/[[10"
OF = r"[\s*_`\"'”$\])}]{0,8}(?:/|out of|of|von|sur|de)[\s*_\[]{0,8}"
_GRADE = (
    rf"(?P<number>{_NUMBER})(?:{OF}(?P<scale>\d{{1,4}})(?:\.0)?)?"
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
    r"final|overall|total|general|average|combined|weighted|aggregated?|composite|cumulative|mean|"
    r"holistic|summary|bench|numeric(?:al)?|single|fair|honest|reasonable|"
    r"appropriate|suggested|recommended|given|assigned|resulting|corresponding|following|revised|"
    r"adjusted|updated|clear|better|ultimate|quality|evaluation|assessment|judge|judge?ment|"
    r"solid|strong|perfect|high|low|assistant|model|answer|response|reply|output|solution|turn)\b"
)
# The word before a label where it is no plain one.
ASPECT = rf"(?<![^\W\d_])(?<!['’])(?!{_PLAIN_WORD})[a-z]+(?:[*_]{{0,3}}[ \t]+|[_-])"
FOR_ASPECT = rf"\s+for\s+(?!{_PLAIN_WORD})"


@dataclass(frozen=True)
class _Labels:
    """Words that name a verdict, as regular expressions.

    sure: as in "the score is 8". loose: those that also name a result in the answer, and so need a
    colon. foreign: those of other languages, before which any word may stand.
    """

    sure: str
    loose: str
    foreign: str


GRADE_LABELS = _Labels(
    "ratings?|scores?|grades?|marks?",
    "result|overall|total",
    "评分|评级|得分|分数|打分|評価|評分|採点|スコア|点数|평점|점수|등급|"
    "bewertung|punktzahl|puntuaci[oó]n|calificaci[oó]n|nota|оценка|балл|"
    r"note(?=\s*:\s*\d[\d.,]*\s*/\s*10)",  # French. In English it is no label.
)
PREFERENCE_LABELS = _Labels(
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
class Kind:
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
) -> Kind:
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
    label = rf"(?:{noun}|(?<![a-zа-я])(?:{labels.foreign}))(?:(?!{FOR_ASPECT})\s+{word}){{0,6}}"
    link = r"[\s*_`\"'\]>)]{0,8}(?:[:=]|(?<=[\]>])|(?(loose)(?!)|\b(?:is|of)\b))"
    opened = r"[\s*_`\"'“$\[({<]{0,8}(?:\\boxed\{)?"
    ended = r"(?=[ \t*_`\"'”$\])}>]*(?:[.,;:!?<(|\n–—-]|$))"
    # A heading with a label, and a line below it.
    heading = rf"^[ \t#*_]*{name}[ \t*_:]*\n\s*{opened}{value}"
    forms = [f"{label}{_SCALE}{link}{opened}{value}{ended}", rf"{heading}[ \t*_`$\])}}>.]*$"]
    forms += [form.replace("VALUE", value) for form in others]
    return Kind(
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
# ">" with another verdict in front of it: "[[B]] > [[A]]". It also ends tags, arrows ("-> [[A]]")
# and the mark of a quoted line.
_ABOVE = r"(?:\]\s?\]|(?<![<\w/=\"'])(?-i:[AB]))[ \t*_`\"”]{0,8}>{1,3}(?!\s*\n)"
WORSE_THAN = r"\b(?:worse|weaker|poorer|less(?:\s+(?!better\b|more\b)[^\W\d_]+){1,3})\s+than\b"

GRADES = _kind(
    _GRADE,
    GRADE_LABELS,
    (_SAID_OF_TEN,),
    r"\s*(?:-|–|—|~|,?\s*(?:to|or|and))\s*",
    r"(?P<beaten>/|\bout of|\bnot(?: an?)?|\brather than|\binstead of)[\s*_]*$",
    (
        *("rating", "score", "grade", "overall_rating", "overall_score"),
        *("final_rating", "final_score", *_WHOLE_KEYS, "ratings", "scores"),
    ),
    _grade_of,
)
SIDES = _kind(
    _PREFERENCE,
    PREFERENCE_LABELS,
    (),
    r"\s*(?:/|,|=|&|,?\s*(?:or|and))\s*",
    rf"(?:{WORSE_THAN}|(?P<beaten>{_ABOVE}|\b(?:than|over|not|beats|outperforms|surpasses|exceeds|"
    r"instead of|against|vs\.?|(?:superior|preferable|preferred) to)))[\s*_\"“']*"
    r"(?:(?:assistant|model|answer|response)\s+)?$",
    (
        *("verdict", "winner", "preference", "preferred", "choice", "decision", "final_verdict"),
        *_WHOLE_KEYS,
    ),
    _side_of,
)
