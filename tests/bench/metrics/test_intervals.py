"""Confidence intervals."""

import math

import numpy as np
import pytest

from bench import metrics
from bench.metrics import intervals
from tests.helpers.runs import random_turns, turn_of


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """A ratio that is 1.1 in truth, on questions whose speeds differ by far more than that."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(60):
        speed, tokens = random.uniform(50, 500, 60), random.integers(50, 500, 60)
        noise = random.normal(1, 0.05, (2, 60))
        low, high = intervals.pooled_interval(
            tokens, tokens / (1.1 * speed) * noise[0], tokens, tokens / speed * noise[1]
        )
        assert high - low < 0.1  # Unpaired it would be some 0.4 wide.
        held += low <= 1.1 <= high
    assert 52 <= held <= 60


def test_an_interval_holds_the_middle_of_what_resampling_gives():
    """A question unlike the others, so that other kinds of bootstrap intervals lie elsewhere."""
    tokens, steps = np.array([10, 10, 20, 20, 30, 30, 40, 40, 50, 300]), np.full(10, 10)
    drawn = np.random.default_rng(1).integers(0, 10, (20000, 10))
    by_hand = np.percentile(tokens[drawn].sum(1) / steps[drawn].sum(1), [2.5, 97.5])
    interval = intervals.pooled_interval(tokens, steps)
    assert interval == pytest.approx(by_hand, rel=0.05)
    assert interval == intervals.pooled_interval(tokens, steps)  # The seed is fixed.


def test_questions_weigh_as_much_as_their_turns():
    turns = [turn_of("dynamic", [1] * 6, [1] * 6, question_id=1, turn=n) for n in (1, 2, 3)]
    others = [turn_of("dynamic", [1] * n, [n], question_id=n) for n in (2, 3, 4)]
    estimate = metrics.estimates(metrics.frame(turns + others), "dynamic")["tokens_per_inference"]
    tokens, steps = np.array([18, 2, 3, 4]), np.array([18, 1, 1, 1])
    assert (estimate.low, estimate.high) == intervals.pooled_interval(tokens, steps)


def test_questions_without_tokens_leave_no_interval_rather_than_an_infinite_one(recwarn):
    """Of two questions one has none, so a quarter of the draws have nothing to divide by."""
    some, none = np.array([5, 5]), np.array([0, 5])
    for sums in ((some, none), (some, some, none, some), (none, none)):
        assert np.isnan(intervals.pooled_interval(*sums)).all()
    assert not recwarn.list


def test_what_an_interval_says():
    frame = metrics.frame(random_turns(["greedy", "static", "dynamic"]))
    assert metrics.estimates(frame, "dynamic")["tpi_ratio"].words == "higher"
    same = metrics.estimates(frame.replace({"decoder": {"static": "twin"}}), "twin", "twin")[
        "tpi_ratio"
    ]
    assert same.value == 1.0 and same.words == "unknown"
    assert math.isnan(metrics.estimates(frame[frame.question_id == 0], "dynamic")["tpi_ratio"].low)
    assert metrics.estimates(frame, "dynamic", None)["wall_clock_ratio"].words == "unknown"
