"""Other work on this machine: loops that keep processors busy, on a schedule."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import cycle
from math import inf

BUSY_S, QUIET_S = 4.0, 6.0  # Phases of the load "sometimes".
# A loop ends with the process that started it, however that ends.
LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"
Phase = tuple[float, bool]  # Seconds, and whether the machine is busy during them.


def schedule(load: str, first_s: float) -> Iterable[Phase]:
    """The phases of a load of `settings.checking.LOADS`, after which the machine is quiet.

    >>> list(schedule("first", 20.0)), list(schedule("never", 20.0))
    ([(20.0, True)], [])
    """
    if load == "sometimes":
        return cycle([(BUSY_S, True), (QUIET_S, False)])
    busy_s = {"never": 0.0, "first": first_s, "always": inf}[load]
    return [(busy_s, True)] if busy_s else []


@contextmanager
def busy(phases: Iterable[Phase], loops: int) -> Iterator[None]:
    """Keep `loops` processors busy beside the body, phase by phase."""
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(phases, loops, over))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _follow(phases: Iterable[Phase], loops: int, over: threading.Event) -> None:
    for seconds, is_busy in phases:
        if over.is_set():
            return
        count = loops if is_busy else 0
        processes = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(count)]
        over.wait(min(seconds, threading.TIMEOUT_MAX))
        for process in processes:
            process.kill()
            process.wait()
