"""When a turn ends. tests/bench/running/test_lengths.py ends whole turns of every decoder."""

import pytest

from decoders.step import NotANumber, Stop


def has_two_threes(tokens: list[int]) -> bool:
    return tokens.count(3) >= 2


@pytest.mark.parametrize(
    ("before", "new", "expected"),
    [
        ([], [4], ([4], None)),
        ([4, 4], [4, 4], ([4, 4], None)),
        ([], [4, 9, 4], ([4, 9], "eos")),
        ([4], [3, 4, 3, 4], ([3, 4, 3], "stop")),
        ([3], [4, 3, 9], ([4, 3], "stop")),
        ([4, 4, 4], [4, 4, 9], ([4, 4], "length")),
        # Of several reasons at one token: eos, then a stop string, then the length.
        ([3, 4, 4, 4], [9, 4], ([9], "eos")),
        ([3, 4, 4, 4], [3, 4], ([3], "stop")),
    ],
)
def test_a_step_is_cut_at_the_first_token_that_ends_the_turn(before, new, expected):
    assert Stop(frozenset([9]), 5, has_two_threes).cut(before, new) == expected


def test_without_a_stop_string_none_is_looked_for():
    assert Stop(frozenset(), 9).cut([3], [3, 3]) == ([3, 3], None)


def test_where_there_is_no_number_the_position_is_said():
    assert isinstance(NotANumber(7), ArithmeticError)
    assert "logits at position 7 are NaN or infinite" in str(NotANumber(7))
