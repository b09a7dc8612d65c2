"""The time that a chat template is told."""

from datetime import datetime, timedelta, timezone

import pytest

from bench.inputs.chat import Chat
from tests.helpers.models import tiny_tokenizer

MAY = datetime(2024, 5, 3, 14, 7, 9, tzinfo=timezone.utc)


def text_of(template: str, now: datetime | None = MAY) -> str:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return Chat.of(tokenizer, None, now).prompt_text(["hi"], [])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("%d %b %Y", "03 May 2024"),
        ("%A, %B %-d", "Friday, May 3"),
        ("%Y-%m-%dT%H:%M:%S", "2024-05-03T14:07:09"),
        ("the %-dth day, %-I o'clock", "the 3th day, 2 o'clock"),
        ("no directive", "no directive"),
    ],
)
def test_a_template_is_told_the_time_of_the_run(asked, told):
    template = "{{ strftime_now(format) }}|{{ messages[0].content }}"
    assert text_of(f'{{% set format = "{asked}" %}}{template}') == f"{told}|hi"


def test_prompts_of_another_day_have_another_digest():
    """Two runs were called alike though the date stood in each of their prompts."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d') }}|{{ messages[0].content }}"
    days = [Chat.of(tokenizer, None, MAY + timedelta(hours=hours)) for hours in (0, 1, 24)]
    first, later, next_day = (chat.digest() for chat in days)
    assert first == later != next_day


def test_it_is_told_everywhere_in_a_template():
    """In a macro, in a loop, and where it is asked whether there is such a function."""
    assert text_of(
        "{% macro day() %}{{ strftime_now('%d') }}{% endmacro %}"
        "{% for m in messages %}{% set today = strftime_now('%Y') %}{{ today }}{% endfor %}"
        "{% if strftime_now is defined %}{{ day() | int + 1 }}{% endif %}"
        "{{ strftime_now('%d %B').split(' ')[1] }}"
    ) == ("20244May")


@pytest.mark.parametrize("template", ["  x\n  {% if true %}\n  y{% endif %}", "\n\nx", "{{ 'x' }}"])
def test_nothing_else_of_a_template_changes(template):
    asking = template + "{% if false %}{{ strftime_now('') }}{% endif %}"
    assert text_of(asking) == text_of(template)


def test_without_a_time_it_is_that_of_the_making():
    before = datetime.now(timezone.utc)
    told = text_of("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f %z') }}", None)
    after = datetime.now(timezone.utc)
    assert before <= datetime.strptime(told, "%Y-%m-%d %H:%M:%S.%f %z") <= after
