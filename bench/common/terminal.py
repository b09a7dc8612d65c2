"""Printing tables on the terminal, or into a file."""

import sys

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from bench.common.media import visible

UNBOUNDED = 10_000  # Columns that no table needs.
FILE_WIDTH = 160  # Columns where the output goes into a file.
WHOLE_NAME = 24  # Characters of a name that stay on one line.


def console() -> Console:
    """A console as wide as the terminal, or FILE_WIDTH. Text is never read as markup."""
    return Console(width=None if sys.stdout.isatty() else FILE_WIDTH, markup=False)


def print_table(table: Table) -> None:
    """Print a table without cutting names or numbers.

    A table that is wider than the terminal keeps its width, and the terminal wraps the lines. What
    could steer the terminal is shown as an escape.
    """
    out = console()
    table.title, table.caption = (
        visible(text) if isinstance(text, str) else text for text in (table.title, table.caption)
    )
    for column in table.columns:
        column.header = visible(str(column.header))
        column._cells = [visible(str(cell)) for cell in column.cells]
    for column in table.columns:
        texts = [str(column.header), *map(str, column.cells)]
        longest = max(len(line) for text in texts for line in text.split("\n"))
        column.min_width = longest if column.no_wrap else min(longest, WHOLE_NAME)
    needed = Measurement.get(out, out.options.update(width=UNBOUNDED), table).minimum
    out.width = max(out.width, needed)
    out.print(table)
