"""Ends a command on a signal, at a moment when nothing is lost.

SIGINT (Ctrl-C) ends a command with status 130, SIGTERM (sent by job schedulers) with 143. In a
`StopBetween` the first signal waits for the next `check`; the second one is obeyed at once. A
signal that was ignored when the process began stays ignored.
"""

import os
import signal
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The process was asked to end. `status`: the exit status that it ends with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class _Handler:
    """A context that handles SIGINT and SIGTERM. It does nothing outside the main thread."""

    def __enter__(self) -> "_Handler":
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                try:
                    self._before[number] = signal.signal(number, self._handle)
                except ValueError:  # Only the main thread can handle signals.
                    break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(number)


class StopAtOnce(_Handler):
    """A context in which either signal raises Stopped."""


class StopBetween(_Handler):
    """A context in which the first signal waits until `check`.

    say: printed when that signal comes. `number`: the signal that waits. None: no signal does.
    """

    def __init__(self, say: str) -> None:
        self.say = say
        self.number: int | None = None

    def check(self) -> None:
        """Raise Stopped where a signal waits."""
        if self.number is not None:
            raise Stopped(self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.check()
        self.number = number
        # Not print(): the signal may have interrupted another print().
        os.write(2, f"\n{self.say}\n".encode())
