"""Accept lengths: histogram, by depth, along the answer."""

import math

import pandas as pd
import pytest

from bench import metrics
from tests.helpers.runs import TWO_DECODERS, make_turn


def test_the_histograms_mean_is_tokens_per_inference():
    frame = metrics.frame(TWO_DECODERS)
    histogram = metrics.accept_length_histogram(frame[frame.decoder == "dynamic"])
    assert sum(length * share for length, share in histogram.items()) == pytest.approx(1.6)


def test_acceptance_by_depth_by_hand():
    """Seven steps in two turns. A turn's last step counts as tried no deeper than it kept."""
    frame = metrics.frame(
        [
            make_turn(accepts=[1, 3, 2, 2], nodes=[8] * 4),
            make_turn(accepts=[3, 1, 1], nodes=[8, 1, 8], question_id=2),
        ]
    )
    table = metrics.acceptance_by_depth(frame).set_index("depth")
    # Depth 1: steps 1 to 4 of the first turn and step 1 of the second. Step 2 of the second had a
    # lone root, and its step 3 was cut.
    assert table.loc[1].tolist() == [5, 4, 4 / 5, 4 / 7]
    # Depth 2: the steps of 3, 2 and 3; the last 2 of the first turn may have been cut.
    assert table.loc[2].tolist() == [3, 2, 2 / 3, 2 / 7]
    assert list(table.index) == [1, 2]


def test_acceptance_where_nothing_is_known_or_drafted():
    greedy = metrics.frame(TWO_DECODERS[:3])
    assert metrics.acceptance_by_depth(greedy).empty
    unknown = metrics.table([{"question_id": 1, "choice": 0, "turn": 1, "tokens": 4, "steps": 2}])
    assert (
        metrics.acceptance_by_depth(unknown).empty
        and metrics.accept_length_histogram(unknown).empty
    )
    assert metrics.accept_length_along(unknown).empty and math.isnan(
        metrics.mean_accepted_tokens(unknown)
    )
    assert (
        math.isnan(metrics.tokens_per_second_with_prefill(unknown))
        and metrics.tokens_per_inference(unknown) == 2.0
    )


def test_accept_length_along_the_answer():
    """Twenty answers that speed up after 100 tokens.

    The smoothed line is flat before and after, and a mean between.
    """
    frame = metrics.frame(
        [make_turn(accepts=[1] * 100 + [4] * 25, nodes=[8] * 125, question_id=n) for n in range(20)]
    )
    line = metrics.accept_length_along(frame, window=20)
    assert line[0] == line[89] == 1.0 and line[110] == line[180] == 4.0
    assert line[100] == pytest.approx(
        (10 * 1 + 3 * 4) / 13
    )  # Tokens 90 to 110: ten steps of 1, three of 4.
    assert len(line) == 197  # The last step begins at token 196.


def test_the_line_along_the_answer_ends_where_too_few_steps_are_left():
    """Near token 33 began six steps of 1 and four of 4; near token 34, five and four."""
    line = metrics.accept_length_along(
        metrics.frame([make_turn(accepts=[1] * 30 + [4] * 5, nodes=[8] * 35)]), window=18
    )
    assert len(line) == 34 and line[0] == 1.0 and line[33] == pytest.approx((6 * 1 + 4 * 4) / 10)


def test_turns_whose_accept_lengths_are_not_known_or_are_none_are_left_out():
    turns = [
        make_turn(accepts=[1, 3, 2, 2] * 5, nodes=[8] * 20),
        make_turn(accepts=[], nodes=[], question_id=2),
    ]
    unknown = metrics.table([{"question_id": 3, "choice": 0, "turn": 1, "tokens": 4, "steps": 2}])
    known, mixed = metrics.frame(turns[:1]), pd.concat([unknown, metrics.frame(turns)])
    for of in (
        metrics.accept_length_histogram,
        metrics.acceptance_by_depth,
        metrics.accept_length_along,
    ):
        assert of(mixed).equals(of(known)) and not of(known).empty
        assert of(metrics.frame(turns[1:])).empty
    # Where only the nodes are not known, there were enough.
    assert metrics.acceptance_by_depth(known.assign(nodes=None)).equals(
        metrics.acceptance_by_depth(known)
    )


def test_the_window_along_answers_is_shorter_than_the_answers():
    """A window of 64 tokens would make the curve of answers of 24 flat."""
    short = metrics.frame([make_turn(accepts=[2] * 12) for _ in range(3)])
    assert metrics.window_of(short) == 6
    assert metrics.window_of(metrics.frame([make_turn(accepts=[2] * 500)])) == 64
