"""How deep JSON may be nested."""

import json

import pytest

from bench.common.strict_json import DEEPEST, parse_json


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_how_deep_json_may_be(pair):
    parse_json(nested(DEEPEST, *pair))
    for depth in (DEEPEST + 1, 900, 200_000):
        with pytest.raises(ValueError, match="nested too deeply"):
            parse_json(nested(depth, *pair))


def test_brackets_in_texts_and_beside_each_other_are_no_depth():
    value = {"text": "[{" * 5000, "list": [[]] * 5000}
    assert parse_json(json.dumps(value).encode()) == value
