"""Runs code of strangers in a process of its own, with a bound on its time and its memory.

A tokenizer or a chat template that multiplies its text cannot be stopped from inside: it fills the
memory, or spends its time in one operation. So the first time it runs in a child, which may be
killed.
"""

import faulthandler
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

from bench.common.strangers import told

try:
    import resource
except ImportError:  # Windows has no such module.
    resource = None

PANIC = "PanicException"  # What Rust code raises where it has failed an assumption of its own.
CAN_BOUND = sys.platform == "linux"
MOST_WALL_PER_CPU = 20  # The longest wait, in multiples of the time of computing that is allowed.


class OutOfBounds(Exception):
    """The child took too long, or more memory than it may, or it crashed or panicked."""


def bounded(work: Callable[[], object], seconds: float, memory: int) -> object:
    """What `work` returns, as JSON has it. None: it raised an exception.

    seconds: of CPU time that it may use. memory: bytes that it may take beyond
    those of this process. OutOfBounds where it takes more, or makes this process wait for too long.
    Elsewhere than on Linux nothing is run: Windows cannot fork a process, and a forked one may
    crash on macOS for reasons of its own.
    """
    if not CAN_BOUND:
        return None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _run(work, seconds, memory, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        limits = {signal.SIGPROF: seconds, signal.SIGALRM: MOST_WALL_PER_CPU * seconds}
        if (limit := limits.get(os.WTERMSIG(status))) is not None:
            raise OutOfBounds(f"it takes more than {limit:g} s")
        raise OutOfBounds(f"it takes more than {memory >> 20} MiB, or crashes")
    if not content:  # The child could not even say what went wrong.
        raise OutOfBounds(f"it takes more than {memory >> 20} MiB, or crashes")
    answer = json.loads(content)
    if answer["error"].startswith(MemoryError.__name__):
        raise OutOfBounds(f"it takes more than {memory >> 20} MiB")
    # The same call in this process would print pages before the panic could be caught.
    if answer["error"].startswith(PANIC):
        raise OutOfBounds(f"it fails with {answer['error']}")
    return answer["value"]


def _run(work: Callable[[], object], seconds: float, memory: int, writing: int) -> None:
    """The child's part. It ends with os._exit, so that no exit handler of the parent runs here."""
    answer = {"value": None, "error": "it cannot be told"}
    try:
        # The default action ends the child in native code, too. A handler in Python would wait.
        for each in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(each, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        signal.alarm(math.ceil(MOST_WALL_PER_CPU * seconds))
        # Hide what a crash prints.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        faulthandler.disable()  # It may write to a copy of stderr.
        _limit_memory(memory)
        answer = {"value": work(), "error": ""}
    except BaseException as error:  # noqa: BLE001 - whatever it is, the child ends here
        answer["error"] = told(error)
    finally:
        try:
            os.write(writing, json.dumps(answer).encode())
        finally:
            os._exit(0)


def _limit_memory(memory: int) -> None:
    with suppress(OSError, ValueError):  # A limit may stand already.
        limit = psutil.Process().memory_info().vms + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
