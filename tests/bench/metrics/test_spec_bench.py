"""Spec-Bench's formulas."""

import math

import numpy as np
import pytest

from bench import metrics
from tests.helpers.runs import TWO_DECODERS, turn_of


def test_spec_bench_counts_first_choices_of_whole_questions():
    """Its times include the prefill, of 0.25 s a turn here."""
    frame = metrics.frame([*TWO_DECODERS, turn_of("dynamic", [1] * 50, [50], 1.0, choice=1)])
    row = metrics.spec_bench_row(frame, "dynamic", "greedy")
    assert row["decoder"] == "dynamic" and row["mean_accepted_tokens"] == 1.6
    assert row["mean_tokens_per_second"] == (6 / 2.0 + 2 / 1.75) / 2
    assert row["speed_up"] == pytest.approx(((6 / 2.0 + 2 / 1.75) / 2) / ((6 / 3.5 + 2 / 1.25) / 2))
    assert math.isnan(metrics.spec_bench_row(frame, "dynamic", None)["speed_up"])


def test_spec_benchs_formulas_by_hand():
    """Two questions of two turns: 8 tokens in 2 s, 9 in 1 s; greedy 8 in 4 s, 9 in 3 s."""
    answers = {
        "dynamic": [(5, 2, 1.5), (3, 1, 0.5), (4, 2, 0.5), (5, 5, 0.5)],
        "greedy": [(5, 5, 2), (3, 3, 2), (4, 4, 1), (5, 5, 2)],
    }
    frame = metrics.table(
        {
            "question_id": 1 + at // 2,
            "decoder": decoder,
            "choice": 0,
            "turn": 1 + at % 2,
            "tokens": tokens,
            "steps": steps,
            "wall_s": seconds,
            "accept_lengths": np.array([1] * (steps - 1) + [tokens - steps + 1]),
        }
        for decoder, rows in answers.items()
        for at, (tokens, steps, seconds) in enumerate(rows)
    )
    dynamic = frame[frame.decoder == "dynamic"]
    assert metrics.mean_tokens_per_second(dynamic) == (8 / 2 + 9 / 1) / 2
    assert metrics.spec_bench_speed_up(frame, "dynamic") == ((8 / 2 + 9 / 1) / 2) / (
        (8 / 4 + 9 / 3) / 2
    )
    assert metrics.mean_accepted_tokens(dynamic) == 17 / 10
    ratio = metrics.estimates(frame, "dynamic")["wall_clock_ratio_with_prefill"]
    assert ratio.value == (17 / 3) / (17 / 7)  # Ours is pooled.
