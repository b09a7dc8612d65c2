"""Command lines: the parser that every command uses, and types of numeric arguments."""

import argparse
import math
from collections.abc import Callable

WITHOUT_DEFAULT = (None, False, argparse.SUPPRESS)  # Defaults that --help does not show.
LONGEST_SHOWN = 40  # Characters of a refused value that a message quotes.


def parser(prog: str, doc: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows `doc`, a module's docstring, as it is written.

    --help adds "(default: ...)" to every argument, so a help text need not repeat its default. It
    adds nothing where the default is None or False, or where the help text describes the default
    itself, as in "(default: the run's own folder)".

    prog: the command as the user types it, such as "python -m bench.report".
    """
    return argparse.ArgumentParser(prog, description=doc, formatter_class=_HelpWithDefaults)


class _HelpWithDefaults(argparse.RawDescriptionHelpFormatter):
    """Leaves the description's lines as they are, and adds the default to each help text."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        is_required = not action.option_strings and action.nargs not in ("?", "*")
        if not text or is_required or "(default" in text or "%(default)" in text:
            return text
        if any(default is nothing for nothing in WITHOUT_DEFAULT):
            return text
        if isinstance(default, (list, tuple)):  # Typed with commas: --temperatures 0,0.7
            default = ",".join(map(str, default))
        if default == "":
            return text
        return f"{text} (default: {str(default).replace('%', '%%')})"


def whole(least: int) -> Callable[[str], int]:
    """An argument type: an integer from `least` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or value >= 1 << 63:
            raise argparse.ArgumentTypeError(
                f"{text[:LONGEST_SHOWN]!r} is not an integer from {least} on"
            )
        return value

    return parse


def wholes(least: int) -> Callable[[str], list[int]]:
    """An argument type: integers with commas between them, from `least` on."""

    def parse(text: str) -> list[int]:
        try:
            values = [int(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or min(values) < least:
            raise argparse.ArgumentTypeError(
                f"{text[:LONGEST_SHOWN]!r} is not a list of integers from {least} on, such as 1,2"
            )
        return values

    return parse


def texts(text: str) -> list[str]:
    """An argument type: texts with commas between them, stripped. Empty ones are left out."""
    return [each.strip() for each in text.split(",") if each.strip()]


def positive(text: str) -> float:
    """An argument type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text[:LONGEST_SHOWN]!r} is not a number above 0")
    return value


def temperatures(text: str) -> list[float]:
    """An argument type: finite numbers from 0 on, with commas between them."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 <= value < math.inf for value in values):
        raise argparse.ArgumentTypeError(
            f"{text[:LONGEST_SHOWN]!r} is not a list of temperatures such as 0,0.7"
        )
    return values
