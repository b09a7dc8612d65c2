"""A configuration whose fields are flags. A field holds the default, the help and the check.

    @dataclass(frozen=True)
    class Config:
        limit: int | None = flag(None, "only the first so many", parse=int, least=1)

`add_flags` makes the command line from it. `check_flags` checks the values of any instance.
"""

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from bench.common.errors import UserError

REQUIRED = dataclasses.MISSING  # As a default: the flag must be given.
_FLAG = "flag"  # Key in the metadata of a field.


@dataclasses.dataclass(frozen=True)
class _Flag:
    help: str
    parse: Callable[[str], object] | None
    choices: tuple[str, ...] | None
    accepts: Callable[[Any], bool] | None
    expected: str


def flag(
    default: Any,
    help: str,
    *,
    parse: Callable[[str], object] | None = None,
    choices: tuple[str, ...] | None = None,
    least: int | None = None,
    accepts: Callable[[Any], bool] | None = None,
    expected: str = "",
) -> Any:
    """A field of a configuration that is a flag.

    default: REQUIRED: the flag must be given.
    parse: makes the value from the command line's text. None: the text itself; a bool is a switch.
    least: the smallest number that is accepted.
    accepts, expected: another check, and in words what it expects. A value of None means "not
    given", and is never checked.
    """
    if least is not None:
        accepts, expected = lambda value: value >= least, f"at least {least}"
    return dataclasses.field(
        default=default, metadata={_FLAG: _Flag(help, parse, choices, accepts, expected)}
    )


def flag_name(field: str) -> str:
    """The flag of a field.

    >>> flag_name("max_new_tokens")
    '--max-new-tokens'
    """
    return f"--{field.replace('_', '-')}"


def add_flag(
    parser: argparse.ArgumentParser,
    config: type,
    field: str,
    name: str | None = None,
    **changes: object,
) -> None:
    """Add the flag of one field.

    name: the flag's name, in a command that uses upstream's names. None: made from the field's.
    changes: arguments of `ArgumentParser.add_argument` that differ in this command.
    """
    (found,) = (each for each in dataclasses.fields(config) if each.name == field)
    about: _Flag = found.metadata[_FLAG]
    name = name or flag_name(field)
    options: dict[str, object] = {"help": about.help}
    options |= {"required": True} if found.default is REQUIRED else {"default": found.default}
    if "default" in changes:
        options["help"] = about.help.partition(" (default")[0]  # It describes the field's.
    if isinstance(found.default, bool):
        options["action"] = "store_true"
    elif found.type == bool | None:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["type"] = _argument_type(about, name)
        if about.choices is not None:
            options["metavar"] = "{" + ",".join(about.choices) + "}"
    parser.add_argument(name, **options | changes)


def _argument_type(about: _Flag, name: str) -> Callable[[str], object]:
    """Parses an argument, and refuses a value as `check_flags` does, under the flag's own name."""

    def parse(text: str) -> object:
        value = text if about.parse is None else about.parse(text)
        _check(about, name, value)
        return value

    parse.__name__ = getattr(about.parse, "__name__", "text")  # argparse's messages name it.
    return parse


def add_flags(
    parser: argparse.ArgumentParser, config: type, fields: Iterable[str] | None = None
) -> None:
    """Add the flags of these fields. None: of all fields that are flags."""
    if fields is None:
        fields = [each.name for each in dataclasses.fields(config) if _FLAG in each.metadata]
    for field in fields:
        add_flag(parser, config, field)


def check_flags(config: object) -> None:
    """UserError names the first flag whose value is not allowed."""
    for field in dataclasses.fields(config):
        about: _Flag | None = field.metadata.get(_FLAG)
        if about is not None:
            _check(about, flag_name(field.name), getattr(config, field.name))


def _check(about: _Flag, name: str, value: Any) -> None:
    if value is None:
        return
    if about.choices is not None and value not in about.choices:
        raise UserError(f"{name} is {value!r}; expected {', '.join(about.choices)}")
    if about.accepts is not None and not about.accepts(value):
        raise UserError(f"{name} is {value}; expected {about.expected}")


def refuse_ignored(
    args: object,
    default_of: Callable[[str], object],
    names: Iterable[str],
    reason: str,
) -> None:
    """UserError where one of the flags has another value than its default.

    args: a namespace, or a configuration whose fields are flags. default_of: the default of a flag,
    by name. reason: why these flags have no effect.
    """
    for name in names:
        if getattr(args, name) != default_of(name):
            raise UserError(f"{flag_name(name)} has no effect: {reason}; leave it out")
