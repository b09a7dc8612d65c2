"""Other work on this machine, on a schedule. Nothing here depends on how busy it really gets."""

import itertools
import threading
from typing import ClassVar

from checking import load
from checking.load import busy, schedule


class Process:
    """A busy loop that uses no processor."""

    started: ClassVar[list["Process"]]
    all_started: ClassVar[threading.Event]  # Twice the three loops.

    def __init__(self, command: list[str]) -> None:
        self.is_running = True
        self.started.append(self)
        if len(self.started) == 6:
            self.all_started.set()

    def kill(self) -> None:
        self.is_running = False

    def wait(self) -> None:
        assert not self.is_running


def test_schedules():
    assert list(schedule("never", 5.0)) == []
    assert list(schedule("first", 5.0)) == [(5.0, True)]
    assert list(schedule("always", 5.0)) == [(float("inf"), True)]
    phases = list(itertools.islice(schedule("sometimes", 5.0), 4))
    assert [is_busy for _, is_busy in phases] == [True, False, True, False]


def test_loops_run_while_the_machine_is_to_be_busy_and_end_with_the_body(monkeypatch):
    monkeypatch.setattr(load.subprocess, "Popen", Process)
    monkeypatch.setattr(Process, "started", [], raising=False)
    monkeypatch.setattr(Process, "all_started", threading.Event(), raising=False)
    running = []

    def phases():
        for phase in ((0.0, True), (0.0, False), (float("inf"), True)):
            running.append([process.is_running for process in Process.started])
            yield phase

    with busy(phases(), loops=3):
        assert Process.all_started.wait(60)
    running.append([process.is_running for process in Process.started])
    assert running == [[], [False] * 3, [False] * 3, [False] * 6]
