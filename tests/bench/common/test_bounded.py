"""Code of strangers in a child process that may be killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bench.common import bounded as bounded_module
from bench.common.bounded import CAN_BOUND, OutOfBounds, bounded
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.skipif(not CAN_BOUND, reason="only Linux bounds a child")
MIB = 1 << 20


def test_what_it_returns_and_that_it_raised():
    assert bounded(lambda: [1, "a"], 10, 256 * MIB) == [1, "a"]
    assert bounded(lambda: 1 / 0, 10, 256 * MIB) is None
    assert bounded(lambda: sys.exit(3), 10, 256 * MIB) is None


@pytest.mark.parametrize(
    ("work", "says"),
    [
        (lambda: 9**9**9, "more than"),  # One operation, which no exception interrupts.
        (lambda: [None for _ in iter(int, 1)], "more than"),
        (lambda: os.kill(os.getpid(), signal.SIGABRT), "crashes"),
    ],
)
def test_time_and_crashes_are_bounded(work, says):
    with pytest.raises(OutOfBounds, match=says):
        bounded(work, 1, 256 * MIB)


def test_a_child_that_waits_is_not_waited_for(monkeypatch):
    """A machine that is busy with something else makes a child wait, too, but not for ever."""
    assert bounded(lambda: time.sleep(0.7), 0.3, 256 * MIB) is None
    monkeypatch.setattr(bounded_module, "MOST_WALL_PER_CPU", 4)
    with pytest.raises(OutOfBounds, match="more than 2 s"):
        bounded(lambda: time.sleep(60), 0.5, 256 * MIB)


def test_a_crash_prints_nothing():
    """Also where Python is asked to print the stack of every thread, on a stderr of its own."""
    program = (
        "import faulthandler, os, signal\n"
        "from bench.common.bounded import OutOfBounds, bounded\n"
        "faulthandler.enable(os.fdopen(os.dup(2), 'w'))\n"
        "try: bounded(lambda: os.kill(os.getpid(), signal.SIGSEGV), 10, 1 << 28)\n"
        "except OutOfBounds: print('out of bounds')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("out of bounds\n", "")


def test_memory_is_bounded():
    with pytest.raises(OutOfBounds, match="more than 64 MiB"):
        bounded(lambda: len("a" * (1 << 33)), 10, 64 * MIB)


def test_a_child_that_cannot_tell_its_answer_ends_all_the_same():
    """It must never return into the code of its parent."""
    parent = os.getpid()
    with pytest.raises(OutOfBounds, match="or crashes"):
        bounded(lambda: object(), 5.0, 1 << 30)  # JSON has no such value.
    assert os.getpid() == parent
