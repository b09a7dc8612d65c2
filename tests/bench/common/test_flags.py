"""Flags that stand in the fields of a configuration: added, renamed, parsed and checked."""

import argparse
from dataclasses import dataclass

import pytest

from bench.common.arguments import parser
from bench.common.errors import UserError
from bench.common.flags import add_flag, add_flags, check_flags, flag


@dataclass(frozen=True)
class Config:
    name: str = "no flag"
    limit: int | None = flag(None, "only so many (default: all)", parse=int, least=1)
    colour: str = flag("red", "of the line", choices=("red", "blue"))
    loud: bool = flag(False, "print more")
    fast: bool | None = flag(None, "hurry")


@pytest.fixture
def made() -> argparse.ArgumentParser:
    return parser("prog", "A program.")


def test_every_field_that_is_a_flag_is_added(made):
    add_flags(made, Config)
    given = vars(made.parse_args(["--limit", "3", "--colour", "blue", "--loud", "--no-fast"]))
    assert given == {"limit": 3, "colour": "blue", "loud": True, "fast": False}
    nothing = vars(made.parse_args([]))
    assert nothing == {"limit": None, "colour": "red", "loud": False, "fast": None}


def test_help_tells_each_default_once(made):
    add_flags(made, Config)
    said = " ".join(made.format_help().split())
    assert "only so many (default: all)" in said
    assert "--colour {red,blue} of the line (default: red)" in said
    assert said.count("default") == 2


def test_another_name_and_default(made):
    add_flag(made, Config, "limit", "--most", default=5)
    assert made.parse_args([]).most == 5
    said = " ".join(made.format_help().split())
    assert "only so many (default: 5)" in said
    with pytest.raises(UserError, match="--most is 0; expected at least 1"):
        made.parse_args(["--most", "0"])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--limit", "0"], "--limit is 0; expected at least 1"),
        (["--colour", "green"], "--colour is 'green'; expected red, blue"),
    ],
)
def test_a_value_that_cannot_be_is_refused_on_the_command_line(made, given, says):
    add_flags(made, Config)
    with pytest.raises(UserError, match=says):
        made.parse_args(given)


def test_a_text_that_is_no_number_is_refused(made, capsys):
    add_flags(made, Config)
    with pytest.raises(SystemExit):
        made.parse_args(["--limit", "many"])
    assert "argument --limit: invalid int value: 'many'" in capsys.readouterr().err


def test_a_value_that_cannot_be_is_refused_whoever_gave_it():
    check_flags(Config())
    with pytest.raises(UserError, match="--limit is 0; expected at least 1"):
        check_flags(Config(limit=0))
    with pytest.raises(UserError, match="--colour is 'green'"):
        check_flags(Config(colour="green"))
