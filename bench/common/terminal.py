"""Printing tables on the terminal, or into a file."""

import os
import sys

from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

UNBOUNDED = 10_000  # Columns that no table needs.
FILE_WIDTH = 160  # Columns where the output goes into a file.
WHOLE_NAME = 24  # Characters of a name that stay on one line.


def console() -> Console:
    """A console as wide as the terminal. Text is never read as markup.

    Into a file, it is as wide as the environment's COLUMNS, else FILE_WIDTH.
    """
    is_known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if is_known else FILE_WIDTH, markup=False)


def width_of(table: Table) -> int:
    """Columns that a table takes where no line is wrapped."""
    out = console()
    return Measurement.get(out, out.options.update(width=UNBOUNDED), table).maximum


def print_table(table: Table) -> None:
    """Print a table without cutting names or numbers.

    A table that is wider than the terminal keeps its width, and the terminal wraps the lines.
    """
    out = console()
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        longest = max(cell_len(line) for text in texts for line in text.split("\n"))
        column.min_width = longest if column.no_wrap else min(longest, WHOLE_NAME)
    needed = Measurement.get(out, out.options.update(width=UNBOUNDED), table).minimum
    out.width = max(out.width, needed)
    out.print(table)
