"""How tables are printed."""

import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

UNBOUNDED = 10_000
NAME = 24  # characters of a name that stay on one line


def console() -> Console:
    """As wide as the terminal; wide enough for long names where the output goes into a file. Names are never markup."""
    return Console(width=None if sys.stdout.isatty() else 160, markup=False)


def print_table(table: Table) -> None:
    """Where its names and numbers need more than the terminal's width, they get it, and the terminal wraps the lines."""
    where = console()
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        longest = max(len(line) for text in texts for line in text.split("\n"))
        column.min_width = longest if column.no_wrap else min(longest, NAME)
    needed = Measurement.get(where, where.options.update(width=UNBOUNDED), table).minimum
    where.width = max(where.width, needed)
    where.print(table)
