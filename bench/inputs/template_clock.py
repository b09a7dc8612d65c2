"""The time that a chat template is told: one and the same for a whole run.

A template may ask transformers' function `strftime_now` for the time. The prompts of a run would
then change while it goes on. So a macro of that name is put before the template, and answers from
a table that is made once. (transformers lets no function of ours into a template.)
"""

from contextlib import suppress
from datetime import datetime
from string import ascii_letters

FUNCTION = "strftime_now"
TABLE = "medusa_bench_clock"
# The newline belongs to the last tag: trim_blocks takes it away.
MACRO = (
    f"{{%- macro {FUNCTION}(format) -%}}"
    "{%- set told = namespace(text=format) -%}"
    f"{{%- for directive, value in {TABLE}.items() -%}}"
    "{%- set told.text = told.text.replace(directive, value) -%}"
    "{%- endfor -%}"
    "{{- told.text -}}"
    "{%- endmacro %}\n"
)
NUMBERS = "dmyHIMSj"  # Directives that also come without leading zeros: %-d, on Windows %#d.


def with_clock(template: str, now: datetime) -> dict[str, object]:
    """Arguments of `apply_chat_template` that tell a template the time. Empty: it does not ask."""
    if FUNCTION not in template:
        return {}
    return {"chat_template": MACRO + template, TABLE: _table(now)}


def _table(now: datetime) -> dict[str, str]:
    """Directive of strftime -> its text at this time."""
    table = {}
    for letter in NUMBERS:
        short = now.strftime(f"%{letter}").lstrip("0") or "0"
        table |= {f"%-{letter}": short, f"%#{letter}": short}
    for letter in ascii_letters:
        with suppress(ValueError):  # Systems know different ones.
            table[f"%{letter}"] = now.strftime(f"%{letter}")
    return table
