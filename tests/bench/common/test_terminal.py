"""How tables are printed."""

import pytest
from rich.table import Table

from bench.common import terminal

NAME = "conditional:nodes=auto"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_no_name_and_no_digit_is_cut_off_in_a_narrow_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    table = Table()
    table.add_column("decoder", overflow="fold")
    for number in range(6):
        table.add_column(f"wall-clock ratio {number}", no_wrap=True)
    table.add_row(NAME, *(f"1.23{number}x" for number in range(6)))
    terminal.print_table(table)
    printed = capsys.readouterr().out
    for whole in (
        NAME,
        *(f"1.23{n}x" for n in range(6)),
        *(f"wall-clock ratio {n}" for n in range(6)),
    ):
        assert whole in printed
