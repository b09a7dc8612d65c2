"""Ending when asked to, at a moment when nothing is lost.

SIGINT (Ctrl-C) and SIGTERM (what a job scheduler sends) end a command with status 130 and 143. In a `StopBetween` the first
of them waits for the next `check`, and a second one is obeyed at once. A signal that whoever started the process had set
to be ignored stays ignored.
"""

import os
import signal
from types import FrameType


class Stopped(KeyboardInterrupt):
    """The process was asked to end; `status` is what it ends with."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class _Handler:
    """Handles SIGINT and SIGTERM while it is entered; in the main thread, as no other can."""

    def __enter__(self) -> "_Handler":
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:
                try:
                    self._before[number] = signal.signal(number, self._handle)
                except ValueError:  # not the main thread, which alone is signalled
                    break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        raise Stopped(number)


class StopAtOnce(_Handler):
    """Either signal raises Stopped."""


class StopBetween(_Handler):
    """The first signal is kept until `check`; `say` is what the user is told meanwhile."""

    def __init__(self, say: str) -> None:
        self.say = say
        self.number: int | None = None

    def check(self) -> None:
        """Raises Stopped where the process was asked to end."""
        if self.number is not None:
            raise Stopped(self.number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.check()
        self.number = number
        os.write(2, f"\n{self.say}\n".encode())  # a print may stand in the midst of another one
