"""Strangers' text in every medium that it goes to."""

import csv
import io
from xml.etree import ElementTree

import pandas as pd
import pytest
from rich.table import Table as RichTable

from bench.common import media
from bench.common.errors import UserError, exit_cleanly, warn
from bench.common.terminal import print_table
from bench.reporting.figures.style import canvas
from bench.reporting.tables import Table

STEERING = "\x1b]0;owned\x07\x1b[31mred\x1b[2J\u202egnp.exe\u2066"


def steers(text: str) -> bool:
    return any(character in text for character in "\x1b\x07\u202e\u2066")


def test_nothing_steers_the_terminal(capsys):
    table = RichTable(title=STEERING, caption=STEERING)
    table.add_column(STEERING)
    table.add_row(STEERING)
    print_table(table)
    warn(STEERING)

    def command() -> None:
        raise UserError(STEERING)

    with pytest.raises(SystemExit):
        exit_cleanly(command)
    out, err = capsys.readouterr()
    assert not steers(out + err) and out.count("owned") >= 4 and err.count("owned") == 2


@pytest.mark.parametrize(
    "text", ["你好 日本", "naïve – “quoted”", "👩\u200d💻", "two\nlines\tand a tab"]
)
def test_other_text_is_left_as_it_is(text):
    assert media.visible(text) == text


@pytest.mark.parametrize(
    "name", ["[3cm] & x", "*", "a\n\\input{/etc/passwd}", "%", "100 %", "{", "^^5cinput", "~#$_"]
)
def test_a_row_of_latex_has_no_command_of_anyones(name):
    cells = pd.DataFrame(
        [{"decoder": "first", "tokens/s": "1"}, {"decoder": name, "tokens/s": "2"}]
    )
    made = Table(name, cells, caption=name).latex()
    [row] = [line for line in made.split("\n") if line.endswith(r"& 2 \\")]
    ours = ("textbackslash", "textasciicircum", "textasciitilde")
    for command in row.removesuffix(r" & 2 \\").split("\\")[1:]:
        assert command.startswith(ours) or command[0] in "&%$#_{}"
    assert not row.startswith(("[", "*"))  # They would be an argument of the row before.


def test_a_comment_of_latex_stays_one_line():
    assert "\n" not in media.one_line("evil\n\\write18{id}\r\u2028\\input{x}")


def test_markdown_has_no_link_no_mention_and_no_tag():
    made = media.markdown("@someone ![x](http://evil/x.png) <img src=x> www.evil.example `x`")
    assert not any(part in made for part in ("@", "://", "<", "www.", "![", " `"))


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_cell_of_a_csv_file_is_no_formula(text):
    frame = pd.DataFrame([{"decoder": text, "ratio": -1.5, "turns": 3}]).map(media.csv_cell)
    header, row = csv.reader(io.StringIO(frame.to_csv(index=False)))
    assert row[0][0] not in "=+-@\t\r" and row[1:] == ["-1.5", "3"] and header[0] == "decoder"


def test_a_figure_is_xml_whatever_its_labels_hold(tmp_path):
    with canvas(tmp_path, "figure") as (_, axes):
        axes.set_title("\x1b[2J -- \x00 \ufffe </svg>")
        axes.plot([1, 2], label="\x07")
    ElementTree.fromstring((tmp_path / "figure.svg").read_bytes())
