"""A line for whoever waits, where nothing else is printed for more than some seconds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

SILENT_S = 10.0  # The wait before the first line.
LATER_S = 60.0  # The wait before each further one.


@contextmanager
def patience(doing: str) -> Iterator[None]:
    """A context that may take long. It says so on stderr: "still <doing> after 10 s"."""
    done = Event()

    def tell() -> None:
        waited, wait = 0.0, SILENT_S
        while not done.wait(wait):
            waited, wait = waited + wait, LATER_S
            print(f"still {doing} after {waited:.0f} s; Ctrl-C stops", file=sys.stderr)

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()
