"""Thoughts of a reasoning model: the text that it writes before its answer, between tags."""

import re

# The tags of DeepSeek and Qwen, of Magistral, of Kimi and of gpt-oss.
_NAMES = "(?:think|thinking|thoughts?|seed:think)"
_OPENING = rf"<{_NAMES}>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>"
_CLOSING = rf"</{_NAMES}>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>"
_BEGINS = re.compile(rf"\s*(?:{_OPENING})", re.IGNORECASE)
_CLOSES = re.compile(_CLOSING, re.IGNORECASE)
_TAG = re.compile(f"(?P<opening>{_OPENING})|{_CLOSING}", re.IGNORECASE)


def without_thinking(text: str) -> str:
    """The text after the thoughts that it begins with. Empty where they have no end.

    The opening tag may be missing, as some chat templates end the prompt with it. Tags further on
    may belong to the answer and stay.

    >>> without_thinking("<think>A river?</think>The Rhine."), without_thinking("<think>A river?")
    ('The Rhine.', '')
    """
    start = 0
    while _BEGINS.match(text, start):
        closing = _CLOSES.search(text, start)
        if closing is None:
            return ""
        start = closing.end()
    first = _TAG.search(text, start)
    if first is not None and not first["opening"]:
        start = first.end()
    return text[start:].lstrip() if start else text


def outside_thinking(text: str) -> str:
    """`without_thinking`, and without all further passages between an opening and a closing tag.

    >>> outside_thinking("Good. <think>Is it?</think>Yes.")
    'Good. Yes.'
    """
    text = without_thinking(text)
    kept: list[str] = []
    start, opened = 0, None
    for tag in _TAG.finditer(text):
        if tag["opening"]:
            opened = tag.start() if opened is None else opened
        elif opened is not None:
            kept.append(text[start:opened])
            start, opened = tag.end(), None
    return "".join([*kept, text[start:]])
