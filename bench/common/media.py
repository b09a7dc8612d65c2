"""Strangers' text made safe for the medium that it goes to.

Names of models, categories, answers and error messages come from files and programs of others. Each
function here takes such a text and returns what may be written into one medium.
"""

import html
import re
import unicodedata

# Unicode's categories of characters that steer a terminal, turn the direction of a text, are not
# seen, or are halves of one: control, format and surrogate.
_UNSEEN = ("Cc", "Cf", "Cs")
_JOINERS = "\u200c\u200d"  # Format characters that many scripts and emoji need.
_FORMULA = frozenset("=+-@\t\r")  # Spreadsheets calculate a cell that begins so.
_MARKDOWN = frozenset("\\|`*_[]")
_NOT_XML = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ufffe\\uffff]")
_LINKS = re.compile(r"://|@|\bwww\.")  # Sites make links and mentions of these.
# Brackets and stars could be arguments of the command before them, such as the end of a row.
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"{{{c}}}" for c in "[]*"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def visible(text: str) -> str:
    r"""Text for a terminal or a log. What is not to be seen is shown as an escape.

    Line breaks and tabs stay.

    >>> visible("\x1b[2Jred")
    '\\x1b[2Jred'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    is_noncharacter = ord(character) & 0xFFFE == 0xFFFE
    if character in "\n\t" or character in _JOINERS:
        return character
    if unicodedata.category(character) not in _UNSEEN and not is_noncharacter:
        return character
    return character.encode("unicode_escape").decode()


def one_line(text: str) -> str:
    r"""`visible` text on one line.

    >>> one_line("one\ntwo\x07")
    'one two\\x07'
    """
    return visible(" ".join(text.split()))


def latex(text: str) -> str:
    r"""Text of one line for a LaTeX document.

    >>> latex("50 %\n\\input")
    '50 \\% \\textbackslash{}input'
    """
    return one_line(text).translate(_LATEX)


def markdown(text: str) -> str:
    r"""Text of one line for Markdown, without links and mentions.

    >>> markdown("a|b <i> @me")
    'a\\|b &lt;i&gt; &#64;me'
    """
    marked = "".join(f"\\{c}" if c in _MARKDOWN else c for c in one_line(text))
    escaped = html.escape(marked, quote=False)
    return _LINKS.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), escaped)


def csv_cell(value: object) -> object:
    """A cell of a CSV file. Text is never a formula; any other value is returned as it is.

    >>> csv_cell("=1+1")
    "'=1+1"
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text[:1] in _FORMULA else text


def svg(content: bytes) -> bytes:
    """A figure's SVG without the characters that XML does not allow.

    >>> svg(b"<!-- a\\x1bb -->")
    b'<!-- a?b -->'
    """
    return _NOT_XML.sub("?", content.decode()).encode()
