"""The frames that numbers are computed from."""

import math

import pytest

from bench import metrics
from bench.store.answer_files import Answer, Choice
from tests.helpers.runs import TURNS_ASKED, TWO_DECODERS


def test_a_failed_turn_is_in_no_number():
    """Predecessors gave it the step count and the time of the turn before."""
    assert len(metrics.frame(TWO_DECODERS)) == len(TWO_DECODERS) - 1
    assert metrics.decoder_row(metrics.frame(TWO_DECODERS), "dynamic", TURNS_ASKED)["turns"] == 3


def test_a_time_that_is_none_is_not_known():
    rows = [{"question_id": n, "choice": 0, "turn": 1, "tokens": 1, "steps": 1} for n in range(4)]
    times = [
        {"decode_s": 0.0, "wall_s": 2.0},
        {"decode_s": -1.0},
        {"prefill_s": math.inf, "wall_s": math.inf},
        {},
    ]
    table = metrics.table(row | time for row, time in zip(rows, times, strict=True))
    assert table.decode_s.fillna(-9).tolist() == [0.0, -9, -9, -9] and table.wall_s.fillna(
        -9
    ).tolist() == [2.0, -9, -9, -9]
    assert table.prefill_s.isna().all()


@pytest.mark.parametrize(
    ("tokens", "lengths", "kept"),
    [(6, (3, 4), [3, 3]), (7, (3, 4), [3, 4]), (9, (3, 4), [3, 4]), (2, (3, 4), [3, 4])],
)
def test_of_a_last_step_what_was_kept_counts(tokens, lengths, kept):
    """One table said 3.500 tokens per inference, another one 3.000. A misfit stays as it is."""
    choice = Choice(("a",), steps=(2,), tokens=(tokens,), accept_lengths=(lengths,))
    frame = metrics.answers_frame([Answer(1, "m", (choice,))])
    assert frame.accept_lengths[0].tolist() == kept
    if sum(kept) == tokens:
        mean = metrics.tokens_per_inference(frame)
        histogram = metrics.accept_length_histogram(frame)
        assert metrics.mean_accepted_tokens(frame) == mean
        assert sum(length * share for length, share in histogram.items()) == pytest.approx(mean)
