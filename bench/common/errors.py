"""The one exception that a command turns into one line and a non-zero exit."""

import sys
from collections.abc import Callable

from bench.common.signals import StopAtOnce, Stopped

LONGEST = 2000  # characters of a message; it may quote a file that a stranger made


class UserError(Exception):
    """Something the user can put right: says what was given, what was expected and what to do next."""


def warn(text: str) -> None:
    """Something that the user should know, and that ends nothing."""
    print(f"warning: {text}", file=sys.stderr)


def exit_cleanly(command: Callable[[], int | None]) -> None:
    """Run a command line; a UserError becomes one line on stderr and exit status 2.

    So does what the system refuses: a full disk, a folder without permission. Whatever else is raised is a bug, and keeps
    its traceback.
    """
    try:
        _check_arguments()
        with StopAtOnce():
            sys.exit(command() or 0)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())[:LONGEST]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(stop.status if isinstance(stop, Stopped) else 130)
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)


def _check_arguments() -> None:
    """Arguments go into records, which are UTF-8."""
    for argument in sys.argv:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise UserError(f"the argument {argument!a} is not valid UTF-8") from None
