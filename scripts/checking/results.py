"""The texts of the published results, made again from the published rows."""

import difflib
import re
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from bench.common.errors import UserError
from bench.reporting import report_tables
from bench.reporting.comparison import Report
from bench.reporting.run_source import open_run
from bench.store.turn import PUBLISHED_FILE

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = Path("results", "reference")
TABLES_FILE = "tables.md"
PAGES = ("README.md", "docs/*.md", "results/reference/README.md")
MARK = "<!-- numbers:"
# A table of numbers: the folders of its runs, and its lines.
_NUMBERS = re.compile(
    r"(?P<mark><!-- numbers: (?P<folders>[^>]+) -->\n\n)(?P<lines>(?:\|.*\n)+)", re.MULTILINE
)


def expected_texts(root: Path) -> dict[Path, str]:
    """What every file with published numbers should hold: tables.md of each run, and pages.

    UserError where a page names a run, a column or a decoder that is not published.
    """
    folders = sorted(path.parent for path in (root / PUBLISHED).glob(f"*/{PUBLISHED_FILE}"))
    texts = {folder / TABLES_FILE: _markdown(Report.of([open_run(folder)])) for folder in folders}
    runs = {str(folder.relative_to(root)): folder for folder in folders}
    for page in (page for pattern in PAGES for page in sorted(root.glob(pattern))):
        texts[page] = with_right_numbers(page.read_text(encoding="utf-8"), runs, str(page))
    return texts


def differences(root: Path, expected: Mapping[Path, str]) -> list[str]:
    """The lines in which files of `root` differ from what they should hold, as a unified diff."""
    lines = []
    for path, text in expected.items():
        name = str(path.relative_to(root))
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        lines += difflib.unified_diff(
            found.splitlines(), text.splitlines(), name, f"{name}, from the rows", "", "", 0, ""
        )
    return lines


def with_right_numbers(text: str, runs: Mapping[str, Path], page: str) -> str:
    """A page's text with the cells of every table of numbers made again from the rows.

    runs: name of a published run, as pages name it -> its folder. UserError as in `expected_texts`.
    """

    if (marks := text.count(MARK)) != (tables := len(_NUMBERS.findall(text))):
        raise UserError(
            f"{page} has {marks} marks of numbers ({MARK} ...), and {tables} tables that follow "
            "one after one blank line; no other table is checked"
        )

    def remade(match: re.Match) -> str:
        names = match["folders"].split()
        if unknown := [name for name in names if name not in runs]:
            raise UserError(
                f"{page} shows numbers of {unknown[0]!r}; expected one of {', '.join(runs)}"
            )
        report = Report.of([open_run(runs[name]) for name in names])
        cells = report_tables.headline_cells(report.summary, report.unranked).set_index("decoder")
        heading, rule, *rows = (_cells_of(line) for line in match["lines"].splitlines())
        _, *columns = heading
        decoders = [row[0] for row in rows]
        for wanted, known in ((columns, cells.columns), (decoders, cells.index)):
            if unknown := [name for name in wanted if name not in known]:
                raise UserError(
                    f"{page} shows {unknown[0]!r} of {' '.join(names)}; expected one of "
                    f"{', '.join(known)}"
                )
        made = [[decoder, *cells.loc[decoder, columns]] for decoder in decoders]
        lines = ["| " + " | ".join(row) + " |\n" for row in (heading, rule, *made)]
        return match["mark"] + "".join(lines)

    return _NUMBERS.sub(remade, text)


def _cells_of(line: str) -> list[str]:
    """The cells of a line of a Markdown table.

    >>> _cells_of("| greedy | 1.000 |")
    ['greedy', '1.000']
    """
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _markdown(report: Report) -> str:
    """The report as `python -m bench.report FOLDER --format markdown` prints it."""
    printed = StringIO()
    with redirect_stdout(printed):
        report.show("markdown")
    return printed.getvalue()
