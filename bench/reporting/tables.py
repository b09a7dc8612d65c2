"""Tables of text for a terminal, a paper or a pull request."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill, wrap

import pandas as pd
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from bench.common import media
from bench.common.terminal import console, print_table, width_of

NONE = "-"  # The text of a number that is unknown.
WORDS_STACKED, NAME_STACKED = 14, 13  # Columns of words and of names in a narrow table.
TEXT_COLUMNS = ("decoder", "category", "answer", "accept length, %")  # The others are numbers.
Shape = Callable[[str, bool], str]  # (text, is it a name or word?) -> its lines.


@dataclass(frozen=True, eq=False)
class Table:
    """A table of text."""

    title: str
    cells: pd.DataFrame  # Texts. Its columns are the headings.
    caption: str = ""

    def used_cells(self) -> pd.DataFrame:
        """The cells without columns that are NONE everywhere."""
        return self.cells.loc[:, (self.cells != NONE).any()]

    def print(self) -> None:
        """Print it on the terminal. Where it is too wide, parts of a cell go below each other."""
        table = self._rich(_as_it_is, _as_it_is)
        if width_of(table) <= console().width:
            print_table(table)
        else:
            print_table(self._rich(_stacked, _heading))
        if self.caption:
            console().print(Text(media.visible(self.caption), style="dim"))
        print()

    def _rich(self, cell: Shape, heading: Shape) -> RichTable:
        """The table for a terminal."""
        out = RichTable(
            title=self.title,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            collapse_padding=True,
        )
        cells = self.used_cells()
        is_text = [name in TEXT_COLUMNS for name in cells.columns]
        for name, text in zip(cells.columns, is_text, strict=True):
            justify = "left" if text else "right"
            out.add_column(heading(name, text), justify=justify, overflow="fold", no_wrap=not text)
        for row in cells.itertuples(index=False):
            out.add_row(*map(cell, row, is_text))
        return out

    def markdown(self) -> str:
        cells = self.used_cells()
        rules = ["---" if name in TEXT_COLUMNS else "---:" for name in cells.columns]
        rows = [list(map(media.markdown, row)) for row in cells.itertuples(index=False)]
        lines = [f"**{media.markdown(self.title)}**", ""] if self.title else []
        for row in (list(map(media.markdown, cells.columns)), rules, *rows):
            lines.append("| " + " | ".join(row) + " |")
        if self.caption:
            lines += ["", media.markdown(self.caption)]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A table environment. It needs the booktabs package."""
        cells = self.used_cells()
        heading, *rows = (
            " & ".join(map(media.latex, row)) + r" \\"
            for row in (cells.columns, *cells.itertuples(index=False))
        )
        columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells.columns)
        caption = ". ".join(media.latex(text) for text in (self.title, self.caption) if text)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
        return "\n".join(lines)


def _as_it_is(text: str, _is_name: bool) -> str:
    return text


def _stacked(text: str, is_name: bool) -> str:
    """A cell in short lines. Names break after ":" and "/", numbers before their interval.

    >>> _stacked("1.20x (1.10, 1.30) faster", False).split("\\n")
    ['1.20x', '(1.10, 1.30)', 'faster']
    >>> _stacked("dynamic:nodes=16", True).split("\\n")
    ['dynamic:', 'nodes=16']
    """
    if is_name:
        pieces = re.split(r"(?<=[:/])(?=.)", text)
        return "\n".join(line for piece in pieces for line in wrap(piece, NAME_STACKED) or [piece])
    parts = re.split(r" (?=\()|(?<=\)) ", text)
    return "\n".join(part if "(" in part else fill(part, WORDS_STACKED) for part in parts)


def _heading(text: str, is_name: bool) -> str:
    """A heading with a line for each of its words, as long as these are not short.

    >>> _heading("tokens/inference", False).split("\\n"), _heading("tokens/s", False)
    (['tokens/', 'inference'], 'tokens/s')
    """
    return text if is_name else re.sub(r" |(?<=/)(?=\w{2})", "\n", text)
