"""Tokens per inference and per second, their ratios, and equality with the baseline."""

import math

import numpy as np

from bench import metrics
from tests.helpers.runs import TURNS_ASKED, TWO_DECODERS, turn_of


def test_every_number_by_hand():
    frame = metrics.frame(TWO_DECODERS)
    dynamic = frame[frame.decoder == "dynamic"]
    assert metrics.tokens_per_inference(dynamic) == 8 / 5  # Pooled: not the mean of 2, 2 and 1.
    assert metrics.tokens_per_inference(frame[frame.decoder == "greedy"]) == 1.0
    assert metrics.tokens_per_second(dynamic) == 8 / 3.0
    assert metrics.tokens_per_second_with_prefill(dynamic) == 8 / 3.75
    ratios = metrics.estimates(frame, "dynamic")
    assert ratios["tpi_ratio"].value == 1.6
    assert ratios["wall_clock_ratio"].value == (8 / 3.0) / (8 / 4.0)
    assert metrics.equal_to_baseline(frame, "dynamic", TURNS_ASKED) == (1, 2)
    assert metrics.accept_length_histogram(dynamic).to_dict() == {1: 3 / 5, 2: 1 / 5, 3: 1 / 5}


def test_no_turns_at_all():
    frame = metrics.frame([])
    assert math.isnan(metrics.tokens_per_inference(frame)) and math.isnan(
        metrics.tokens_per_second(frame)
    )
    assert metrics.equal_to_baseline(frame, "dynamic", TURNS_ASKED) == (0, 0)
    assert metrics.accept_length_histogram(frame).empty


def test_half_an_answer_is_not_compared():
    """An answer whose second turn failed is not equal to greedy's, whatever its first turn says."""
    frame = metrics.frame([turn for turn in TWO_DECODERS if turn.key != (1, "dynamic", 0, 2)])
    assert metrics.equal_to_baseline(frame, "dynamic", TURNS_ASKED) == (0, 1)


def test_an_answer_is_equal_when_every_turn_is():
    other = [turn for turn in TWO_DECODERS if turn.key != (1, "dynamic", 0, 2)] + [
        turn_of("dynamic", [5, 6], [2], turn=2)
    ]
    assert metrics.equal_to_baseline(metrics.frame(other), "dynamic", TURNS_ASKED) == (0, 2)


def test_tokens_that_are_not_known_are_not_compared():
    ours = {"question_id": 1, "choice": 0, "turn": 1, "tokens": 2, "steps": 2, "decoder": "dynamic"}
    theirs = ours | {"decoder": "greedy"}
    for turns in ([ours, theirs], [ours, theirs | {"token_ids": np.array([7, 8])}]):
        assert metrics.equal_to_baseline(metrics.table(turns), "dynamic", {1: 1}) == (0, 0)


def test_ratios_by_question_compare_the_medians_of_its_choices():
    frame = metrics.frame(
        [
            *(
                turn_of("greedy", [1, 2], [1, 1], seconds, choice=at)
                for at, seconds in enumerate((2.0, 2.0, 20.0))
            ),
            *(
                turn_of("dynamic", [1, 2], [2], seconds, choice=at)
                for at, seconds in enumerate((1.0, 9.0, 1.0))
            ),
            turn_of("greedy", [3, 1], [1, 1], 1.0, question_id=2),
            turn_of("dynamic", [3, 1], [1, 1], 4.0, question_id=2),
            turn_of("greedy", [3, 1], [1, 1], 1.0, question_id=3),
        ]
    )
    assert metrics.wall_clock_ratio_by_question(frame, "dynamic").to_dict() == {1: 2.0, 2: 0.25}


def test_what_repeats_itself_is_one():
    seconds = {
        (1, 0): 2.0,
        (1, 1): 4.0,
        (1, 2): 2.0,
        (1, 3): 1.0,
        (2, 0): 3.0,
        (2, 1): 3.0,
        (3, 0): 5.0,
    }
    turns = [
        turn_of("greedy", [1, 2], [1, 1], each, question_id=at, choice=choice)
        for (at, choice), each in seconds.items()
    ]
    frame = metrics.frame([*turns, turn_of("dynamic", [1, 2], [2], 1.0, choice=1)])
    # Question 1: the median of 0.5 and 2 tokens a second over that of 1 and 1. Question 3 was
    # answered once.
    assert metrics.repeatability_by_question(frame, "greedy").to_dict() == {1: 1.25, 2: 1.0}
    assert metrics.repeatability_by_question(frame, "dynamic").empty


def test_ratios_are_of_turns_that_both_finished():
    frame = metrics.frame(
        [*TWO_DECODERS, turn_of("greedy", [1] * 100, [1] * 100, 1.0, question_id=3)]
    )
    ratio = metrics.estimates(frame, "dynamic")["wall_clock_ratio"]
    assert ratio.value == (8 / 3.0) / (8 / 4.0)


def test_a_turn_without_a_time_is_in_no_time_and_in_every_count():
    timeless = [
        turn_of("greedy", [1, 2], [1, 1], 9.0, question_id=4),
        turn_of("dynamic", [1, 2], [2], float("nan"), question_id=4),
    ]
    frame = metrics.frame([*TWO_DECODERS, *timeless])
    assert metrics.tokens_per_inference(frame[frame.decoder == "dynamic"]) == 10 / 6
    assert metrics.tokens_per_second(frame[frame.decoder == "dynamic"]) == 8 / 3.0
    ratio = metrics.estimates(frame, "dynamic")["wall_clock_ratio"]
    assert ratio.value == (8 / 3.0) / (8 / 4.0)  # Nor is greedy's turn of that question.
