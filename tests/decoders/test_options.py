"""Options: their names without importing, their values from text."""

import dataclasses
from pathlib import Path
from typing import Literal, Optional, Union

import pytest

from decoders import registry
from decoders.options import parsed, written_options


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_options_in_the_source_are_those_of_the_class(name):
    """In their order, and with their defaults."""
    fields = [field for field in dataclasses.fields(registry.load(name)) if field.init]
    written = written_options(registry.BUILT_IN[name])
    assert [option.name for option in written] == [field.name for field in fields]
    assert [option.default for option in written] == [repr(field.default) for field in fields]


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("8", int, 8),
        ("8", Optional[int], 8),  # noqa: UP045 - as authors write it
        ("8", Union[int, str], 8),  # noqa: UP007
        ("auto", int | str, "auto"),
        ("8", str | int, 8),  # The order of a union does not matter.
        ("0.5", float | None, 0.5),
        ("False", bool, False),
        ("a/b.json", Path, Path("a/b.json")),
        ("a.json", Path | None, Path("a.json")),
        ("b", Literal["a", "b"], "b"),
        ("2", Literal[1, 2] | None, 2),
        ("none", str | None, "none"),
    ],
)
def test_a_value_of_every_type(text, wanted, value):
    found = parsed(text, wanted, "option x")
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "wanted", "says"),
    [
        ("many", int, "option x is 'many'; expected int"),
        ("many", int | None, "option x is 'many'; expected int"),
        ("maybe", bool, "expected bool"),
        ("c", Literal["a", "b"], "option x is 'c'; expected a or b"),
        ("1", tuple[int, ...], "which the command line cannot give"),
    ],
)
def test_a_value_of_another_type(text, wanted, says):
    with pytest.raises(ValueError, match=says):
        parsed(text, wanted, "option x")
