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


@pytest.mark.parametrize("questions", [2, 3, 5, 10, 80])
def test_two_equal_decoders_differ_in_one_report_of_twenty(questions):
    """They were said to differ in 47 % of reports with 2 questions, 18 % with 5, 12 % with 10."""
    random = np.random.default_rng(questions)
    reports = 600
    told_apart = 0
    for _ in range(reports):
        tokens = random.integers(50, 400, questions).astype(float)
        ours, theirs = tokens / 40 * np.exp(random.normal(0, 0.05, (2, questions)))
        low, high = intervals.pooled_interval(tokens, ours, tokens, theirs)
        told_apart += low > 1 or high < 1
    assert 0.02 <= told_apart / reports <= 0.08


def test_of_many_questions_it_is_the_interval_that_resampling_gives():
    random = np.random.default_rng(1)
    tokens, steps = random.integers(50, 400, 80), random.integers(40, 60, 80)
    drawn = random.integers(0, 80, (4000, 80))
    by_hand = np.percentile(tokens[drawn].sum(1) / steps[drawn].sum(1), [2.5, 97.5])
    assert intervals.pooled_interval(tokens, steps) == pytest.approx(by_hand, rel=0.02)


def test_one_question_of_nearly_all_tokens_is_no_evidence():
    """The other nine say how much questions differ, but not how much such a long one does."""
    tokens = np.array([10.0] * 9 + [3000.0])
    low, high = intervals.pooled_interval(tokens, tokens / 1.3, tokens, tokens)
    assert (low, high) == pytest.approx((1.3, 1.3))
    ours = tokens / np.array([*[0.9, 1.1] * 4, 1.0, 1.4])
    low, high = intervals.pooled_interval(tokens, ours, tokens, tokens)
    assert low < 0.5 and high > 2


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


def test_bounds_count_as_they_are_printed():
    """A report said "1.10x (1.00, 1.19) faster"."""
    assert metrics.Estimate(1.1, 1.004, 1.19).words == "no significant difference"
    assert metrics.Estimate(0.9, 0.8, 0.996).words == "no significant difference"
    assert metrics.Estimate(1.1, 1.006, 1.19).words == "higher"
