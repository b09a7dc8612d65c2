"""The parser that every command uses."""

import argparse

import pytest

from bench.common import arguments


def help_of(*flags: dict) -> str:
    parser = arguments.parser("python -m bench.tool", "A tool.\n\n    an   example\n")
    for number, options in enumerate(flags):
        parser.add_argument(f"--flag-{number}", **options)
    return " ".join(parser.format_help().split())


def test_help_shows_the_docstring_as_it_is_written():
    parser = arguments.parser("python -m bench.tool", "A tool.\n\n    an   example\n")
    assert "A tool.\n\n    an   example\n" in parser.format_help()
    assert parser.format_help().startswith("usage: python -m bench.tool ")


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"default": 3, "help": "a number"}, "a number (default: 3)"),
        ({"default": 0, "help": "a number"}, "a number (default: 0)"),
        ({"default": "50%", "help": "95 %% of it"}, "95 % of it (default: 50%)"),
        ({"default": [0, 0.7], "help": "numbers"}, "numbers (default: 0,0.7)"),
        ({"default": None, "help": "a folder"}, "a folder"),
        ({"action": "store_true", "help": "do it"}, "do it"),
        ({"default": "a", "help": "a name (default: the first)"}, "a name (default: the first)"),
        ({"default": 3, "help": "a number, %(default)s as a rule"}, "a number, 3 as a rule"),
    ],
)
def test_defaults_are_shown_once(options, shown):
    assert help_of(options).endswith(shown)


def test_a_positional_argument_that_must_be_given_has_no_default():
    parser = arguments.parser("tool", None)
    parser.add_argument("file", help="a file", default="x")
    parser.add_argument("more", nargs="*", help="more files", default=["y"])
    text = " ".join(parser.format_help().split())
    assert "file a file more more files (default: y)" in text


@pytest.mark.parametrize(
    ("kind", "good", "value", "bad"),
    [
        (arguments.whole(1), "7", 7, ["0", "1.5", "x", str(1 << 63)]),
        (arguments.positive, "0.5", 0.5, ["0", "-1", "nan", "inf", "x"]),
        (arguments.temperatures, "0,0.7", [0.0, 0.7], ["", "-1", "0,nan", "inf", "a"]),
    ],
)
def test_numbers_that_make_no_sense_are_refused(kind, good, value, bad):
    assert kind(good) == value
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError):
            kind(text)
