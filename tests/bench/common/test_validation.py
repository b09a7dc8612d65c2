"""What is wrong with a record, in one line."""

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from bench.common import validation


class Part(BaseModel, strict=True):
    sizes: list[int]


class Whole(BaseModel, strict=True):
    name: str
    part: Part
    odd: int = 1

    @field_validator("odd")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("odd is even")
        return value


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"part": {"sizes": []}}, "it has no 'name'"),
        ({"name": "a", "part": {}}, "it has no 'part.sizes'"),
        ({"name": "a", "part": None}, "part is None, expected an object"),
        (
            {"name": "a", "part": {"sizes": [1, "2"]}},
            "part.sizes[1] is '2', expected a valid integer",
        ),
        ({"name": "a", "part": {"sizes": []}, "odd": 2}, "odd is even"),
        ([1], "it is [1], expected an object"),
    ],
)
def test_the_first_error_names_field_found_and_expected(fields, message):
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(fields)
    assert validation.first_error(caught.value) == message


def test_a_long_value_is_cut():
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"name": [0] * 10_000, "part": {"sizes": []}})
    assert len(validation.first_error(caught.value)) < 200
