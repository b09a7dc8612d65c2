"""Where code runs that is not ours: a model's tokenizer and template, a plug-in, a file's parser.

Such code may raise anything. A tokenizer's panic is no `Exception`, an exception may fail to print
itself, and a plug-in may exit. Here all of it becomes one clear line.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.common.errors import UserError
from bench.common.media import one_line
from bench.common.signals import Stopped

LONGEST = 500  # Characters of a stranger's message that are shown.


class StrangersError(UserError):
    """Code that is not ours has failed. `__cause__` is what it raised."""


@contextmanager
def strangers_code(
    say: Callable[[BaseException], str],
    expected: type[Exception] | tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """A context for code that is not ours. Whatever it raises becomes a StrangersError.

    say: makes the message from it. expected: errors that pass through. So do a UserError, and a
    signal that ends the command.
    """
    try:
        with _no_silent_exit():
            yield
    except BaseException as error:
        if _is_ours(error) or isinstance(error, expected):
            raise
        raise StrangersError(say(error)) from error


@contextmanager
def _no_silent_exit() -> Iterator[None]:
    """A context in which `os._exit` raises SystemExit. It would end the command without a word."""
    process, end = os.getpid(), os._exit

    def raise_instead(status: int) -> None:
        if os.getpid() != process:  # A forked child, which may end as it likes.
            end(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = raise_instead
    try:
        yield
    finally:
        os._exit = end


def _is_ours(error: BaseException) -> bool:
    """Whether the error is ours, or a real Ctrl-C (`Stopped`, where we handle signals)."""
    if isinstance(error, KeyboardInterrupt) and not isinstance(error, Stopped):
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return isinstance(error, (UserError, Stopped, GeneratorExit))


def told(error: BaseException, most: int = LONGEST) -> str:
    """An error's class and message on one line. The message is cut to `most` characters.

    >>> told(ValueError("no such\\ncolumn"))
    'ValueError: no such column'
    """
    text = message_of(error, most)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message_of(error: BaseException, most: int = LONGEST) -> str:
    """An error's message on one line, cut to `most` characters."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its own method is not ours either
        text = "it cannot be printed"
    return cut_line(text, most)


def cut_line(text: str, most: int = LONGEST) -> str:
    """A stranger's text on one line, cut to `most` characters.

    >>> cut_line("no such\\ncolumn", 11)
    'no such col'
    """
    return one_line(text[: 2 * most])[:most]
