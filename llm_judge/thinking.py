"""Thoughts of a reasoning model: the text that it writes before its answer, between tags."""

import re

_ATTRIBUTE = r"(?:\s+[\w:.-]+\s*=\s*[^<>]{1,100})?"


def _element(name: str) -> tuple[str, str]:
    return rf"<{name}{_ATTRIBUTE}\s*>", rf"</{name}\s*>"


# Names that prompts ask for. A whole reply may stand in such an element.
_ASKED_FOR = ("reasoning", "reflection", "analysis", "scratchpad")
# Opening and closing tags, as regular expressions. Those of _ASKED_FOR come first.
_PAIRS = (
    *map(_element, _ASKED_FOR),
    _element("(?:seed:)?(?:think(?:ing)?|thoughts?)"),  # DeepSeek, Qwen, Seed
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    ("◁think▷", "◁/think▷"),  # Kimi
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # Sky-T1
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    (r"<\|channel\|>analysis<\|message\|>", r"<\|channel\|>final<\|message\|>"),  # gpt-oss
)
_OPENING = "|".join(f"(?P<opening_{pair}>{tag})" for pair, (tag, _) in enumerate(_PAIRS))
_CLOSING = "|".join(f"(?P<closing_{pair}>{tag})" for pair, (_, tag) in enumerate(_PAIRS))
_FIRST = r"(?=[<\[◁])"  # The first characters of all tags, for speed.
_BEGINS = re.compile(rf"\s*{_FIRST}(?:{_OPENING})", re.IGNORECASE)
_CLOSES = tuple(re.compile(tag, re.IGNORECASE) for _, tag in _PAIRS)
_TAG = re.compile(f"{_FIRST}(?:{_OPENING}|{_CLOSING})", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """The text after the thoughts that it begins with. Empty where they have no end.

    The opening tag may be missing, as some chat templates end the prompt with it. Tags further on
    may belong to the answer and stay. Where the whole text is one element of _ASKED_FOR, what is
    inside it is returned.

    >>> without_thinking("<think>A river?</think>The Rhine."), without_thinking("<think>A river?")
    ('The Rhine.', '')
    """
    start = 0
    while opening := _BEGINS.match(text, start):
        closing = _CLOSES[_pair(opening)].search(text, opening.end())
        if closing is None:
            return ""
        if _pair(opening) < len(_ASKED_FOR) and not text[closing.end() :].strip():
            return text[opening.end() : closing.start()].strip()
        start = closing.end()
    first = _TAG.search(text, start)
    if first is not None and not _is_opening(first):
        start = first.end()
    return text[start:].lstrip() if start else text


def outside_thinking(text: str) -> str:
    """`without_thinking`, and without all further passages between an opening and a closing tag.

    An opening tag on a line of its own needs no closing tag: its passage ends with the text.

    >>> outside_thinking("Good. <think>Is it?</think>Yes.")
    'Good. Yes.'
    """
    text = without_thinking(text)
    kept: list[str] = []
    start, opened = 0, None
    for tag in _TAG.finditer(text):
        if _is_opening(tag):
            opened = opened or tag
        elif opened is not None and _pair(tag) == _pair(opened):
            kept.append(text[start : opened.start()])
            start, opened = tag.end(), None
    end = opened.start() if opened is not None and _has_own_line(opened) else len(text)
    return "".join([*kept, text[start:end]])


def _pair(tag: re.Match) -> int:
    """The index of the tag in _PAIRS."""
    return int(tag.lastgroup.rpartition("_")[2])


def _is_opening(tag: re.Match) -> bool:
    return tag.lastgroup.startswith("opening")


def _has_own_line(tag: re.Match) -> bool:
    before, after = tag.string[: tag.start()], tag.string[tag.end() :]
    return not (before.rpartition("\n")[2] + after.partition("\n")[0]).strip()
