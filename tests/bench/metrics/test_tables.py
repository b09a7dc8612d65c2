"""Numbers by decoder, category and turn."""

import math

import pytest

from bench import metrics
from tests.helpers.runs import TURNS_ASKED, TWO_DECODERS, make_turn, turn_of


def test_without_a_baseline_there_is_no_ratio():
    for baseline in ("greedy", None):  # It did not run; none was asked for.
        row = metrics.decoder_row(metrics.frame(TWO_DECODERS[3:]), "dynamic", TURNS_ASKED, baseline)
        assert math.isnan(row["tpi_ratio"]) and math.isnan(row["wall_clock_ratio"])
        assert (
            row["tokens_per_inference"] == 1.6
            and row["equal_answers"] == row["compared_answers"] == 0
        )


def test_numbers_by_category_and_by_turn():
    """Decoders in the order asked for, groups in the order of the turns.

    A decoder without a turn in a group has no row there.
    """
    frame = metrics.frame(
        [*TWO_DECODERS, turn_of("greedy", [1], [1], question_id=9, category="stem")]
    )
    pairs = {"dynamic": "greedy", "greedy": "greedy"}
    table = metrics.by(frame, "category", pairs)
    groups = [
        ("math", "dynamic"),
        ("math", "greedy"),
        ("coding", "dynamic"),
        ("coding", "greedy"),
        ("stem", "greedy"),
    ]
    assert list(zip(table.category, table.decoder, strict=True)) == groups
    assert table.turns.tolist() == [2, 2, 1, 1, 1]
    assert table.tokens_per_inference.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert table.tokens_per_second.tolist() == [4.0, 2.0, 2 / 1.5, 2.0, 1.0]
    assert table.tokens_per_second_with_prefill.tolist() == [
        6 / 2.0,
        6 / 3.5,
        2 / 1.75,
        2 / 1.25,
        1 / 1.25,
    ]
    assert table.tpi_ratio.tolist() == [2.0, 1.0, 1.0, 1.0, 1.0]
    assert table.wall_clock_ratio.tolist() == pytest.approx([2.0, 1.0, 1 / 1.5, 1.0, 1.0])
    assert metrics.by(frame, "turn", pairs).turn.tolist() == [1, 1, 2, 2]
    assert metrics.by(frame[:0], "turn", pairs).empty


def test_one_decoders_row():
    frame = metrics.frame(TWO_DECODERS)
    row = metrics.decoder_row(frame, "dynamic", TURNS_ASKED)
    assert (row["decoder"], row["baseline"], row["turns"], row["tokens"]) == (
        "dynamic",
        "greedy",
        3,
        8,
    )
    assert row["tokens_per_second"] == 8 / 3.0 and row["tokens_per_second_with_prefill"] == 8 / 3.75
    assert (row["tpi_ratio"], row["wall_clock_ratio"]) == (1.6, pytest.approx(4 / 3))
    assert row["wall_clock_ratio_with_prefill"] == pytest.approx((8 / 3.75) / (8 / 4.75))
    assert row["tpi_ratio_low"] < 1.0 and row["tpi_ratio_high"] > 2.0  # Two questions tell little.
    # The ratios of whole turns are 3.5 / 2 and 1.25 / 1.75.
    assert row["median_question_ratio_with_prefill"] == pytest.approx((3.5 / 2 + 1.25 / 1.75) / 2)
    assert row["repeating_turns"] == row["repeating_tokens"] == 0
    assert (row["equal_answers"], row["compared_answers"]) == (1, 2)
    assert row["accept_length_histogram"] == [0.6, 0.2, 0.2]
    thirds = metrics.decoder_row(
        metrics.frame([make_turn(accepts=[1, 1, 2])]), make_turn().decoder, TURNS_ASKED
    )
    assert thirds["accept_length_histogram"] == [0.6667, 0.3333]
    table = metrics.acceptance_table(frame, ["greedy", "dynamic"])
    assert table[["decoder", "depth", "tried"]].values.tolist() == [
        ["dynamic", 1, 3],
        ["dynamic", 2, 1],
    ]
    assert metrics.acceptance_table(frame, []).empty
