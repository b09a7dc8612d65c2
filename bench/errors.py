"""The one exception that a command turns into one line and a non-zero exit."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right: says what was given, what was expected and what to do next."""


def exit_cleanly(command: Callable[[], int | None]) -> None:
    """Run a command line; a UserError becomes one line on stderr and exit status 2."""
    try:
        sys.exit(command() or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        sys.stderr.close()
        sys.exit(1)
