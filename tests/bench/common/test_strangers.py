"""Whatever a stranger's code raises becomes one line."""

import os
import signal

import pytest

from bench.common.errors import UserError
from bench.common.signals import StopAtOnce, Stopped
from bench.common.strangers import StrangersError, strangers_code, told


class Panic(BaseException):
    """As a tokenizer's panic: no Exception."""


class Unprintable(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("no text")


def endless() -> None:
    endless()


def raising(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (raising(Panic("index out of bounds\n\x1b[2J")), r"Panic: index out of bounds \\x1b\[2J$"),
        (raising(SystemExit(0)), "SystemExit: 0"),
        (lambda: os._exit(0), r"SystemExit: os\._exit\(0\)"),
        (raising(MemoryError()), "MemoryError$"),
        (raising(Unprintable()), "Unprintable: it cannot be printed"),
        (raising(ValueError("\ud800" * 5000)), r"ValueError: \\ud800"),
        (endless, "RecursionError: maximum recursion depth"),
        (lambda: int("9" * 5000), "ValueError: Exceeds the limit"),
    ],
)
def test_whatever_is_raised_is_one_short_line(run, says):
    with pytest.raises(StrangersError, match=says) as caught, strangers_code(told):
        run()
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600 and text.encode()


def test_a_forked_child_of_theirs_ends_as_it_likes():
    end = os._exit
    with strangers_code(told):
        child = os.fork()
        if child == 0:
            os._exit(5)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5
    assert os._exit is end


def test_our_own_messages_and_what_is_expected_pass_through():
    with pytest.raises(UserError, match="ours"), strangers_code(told):
        raise UserError("ours")
    with pytest.raises(ValueError, match="theirs"), strangers_code(told, expected=ValueError):
        raise ValueError("theirs")


def test_a_real_signal_passes_through_and_a_made_up_one_does_not():
    with pytest.raises(KeyboardInterrupt), strangers_code(told):
        raise KeyboardInterrupt  # Nobody handles Ctrl-C here, so it is a real one.
    with StopAtOnce():
        with pytest.raises(Stopped), strangers_code(told):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(StrangersError, match="KeyboardInterrupt"), strangers_code(told):
            raise KeyboardInterrupt
