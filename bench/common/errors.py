"""The one exception that a command turns into one line and a non-zero exit."""

import sys
from collections.abc import Callable

from bench.common.media import one_line, visible
from bench.common.signals import StopAtOnce, Stopped

LONGEST_MESSAGE = 2000  # Characters. A message may quote a file that is not ours.


class UserError(Exception):
    """Something that the user can put right.

    The message says what was given, what was expected and what to do next.
    """


def warn(text: str) -> None:
    """Tell the user something that does not end the command."""
    print(f"warning: {visible(text)}", file=sys.stderr)


def print_error(error: UserError) -> None:
    """Print an error on one line of stderr."""
    print(f"error: {one_line(str(error)[:LONGEST_MESSAGE])}", file=sys.stderr)


def exit_cleanly(command: Callable[[], int | None]) -> None:
    """Run a command and exit the process with its status; None is 0.

    A UserError becomes one line on stderr and status 2. So does an OSError: a full disk, a folder
    without permission. Any other exception is a bug and keeps its traceback.
    """
    try:
        _check_arguments()
        with StopAtOnce():
            sys.exit(command() or 0)
    except UserError as error:
        print_error(error)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(stop.status if isinstance(stop, Stopped) else 130)
    except BrokenPipeError:  # The reader of our output went away (`| head`).
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {one_line(f'{where}{error.strerror or error}')}", file=sys.stderr)
        sys.exit(2)


def _check_arguments() -> None:
    """UserError where an argument is not UTF-8: run.json records it, and is UTF-8."""
    for argument in sys.argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(f"the argument {argument!a} is not valid UTF-8") from None
