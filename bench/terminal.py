"""How tables are printed."""

import sys

from rich.console import Console


def console() -> Console:
    """As wide as the terminal; wide enough for long names where the output goes into a file. Names are never markup."""
    return Console(width=None if sys.stdout.isatty() else 160, markup=False)
