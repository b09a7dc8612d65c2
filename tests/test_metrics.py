import math

import pytest

from bench import metrics
from bench.records import Turn


def turn(decoder: str, tokens: list[int], accepts: list[int], seconds: float = 1.0, **changes) -> Turn:
    fields = dict(
        question_id=1, category="math", decoder=decoder, choice=0, turn=1, temperature=0.0, seed=0, prompt_tokens=5,
        token_ids=tokens, accept_lengths=accepts, nodes=[4] * len(accepts), prefill_s=0.25, decode_s=seconds,
        finish_reason="eos", error=None, text="",
    )  # fmt: skip
    return Turn(**{**fields, **changes})


TURNS = [
    turn("greedy", [7, 8, 9, 1], [1, 1, 1, 1], 2.0),
    turn("greedy", [5, 1], [1, 1], 1.0, turn=2),
    turn("greedy", [3, 1], [1, 1], 1.0, question_id=2, category="coding"),
    turn("dynamic", [7, 8, 9, 1], [3, 1], 1.0),
    turn("dynamic", [5, 1], [2], 0.5, turn=2),
    turn("dynamic", [4, 1], [1, 1], 1.5, question_id=2, category="coding"),
    turn("dynamic", [], [], 0.0, question_id=3, finish_reason="error", error="boom"),
]
ASKED = {1: 2, 2: 1, 3: 1}  # turns of each question


def test_half_an_answer_is_not_compared():
    """An answer whose second turn failed is not equal to greedy's, whatever its first turn says."""
    frame = metrics.frame([turn for turn in TURNS if turn.key != (1, "dynamic", 0, 2)])
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (0, 1)


def test_every_number_by_hand():
    frame = metrics.frame(TURNS)
    dynamic = frame[frame.decoder == "dynamic"]
    assert metrics.tokens_per_inference(dynamic) == 8 / 5  # pooled: not the mean of 2, 2 and 1
    assert metrics.tokens_per_inference(frame[frame.decoder == "greedy"]) == 1.0
    assert metrics.tokens_per_second(dynamic) == 8 / 3.0
    assert metrics.tpi_ratio(frame, "dynamic") == 1.6
    assert metrics.wall_clock_ratio(frame, "dynamic") == (8 / 3.0) / (8 / 4.0)
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (1, 2)
    assert metrics.accept_length_histogram(dynamic).to_dict() == {1: 3 / 5, 2: 1 / 5, 3: 1 / 5}


def test_the_histograms_mean_is_tokens_per_inference():
    frame = metrics.frame(TURNS)
    histogram = metrics.accept_length_histogram(frame[frame.decoder == "dynamic"])
    assert sum(length * share for length, share in histogram.items()) == pytest.approx(1.6)


def test_a_failed_turn_is_in_no_number():
    """Predecessors gave it the step count and the time of the turn before."""
    assert len(metrics.frame(TURNS)) == len(TURNS) - 1
    assert metrics.summary(metrics.frame(TURNS), ["dynamic"], ASKED).turns.tolist() == [3]


def test_ratios_are_of_turns_that_both_finished():
    frame = metrics.frame([*TURNS, turn("greedy", [1] * 100, [1] * 100, 1.0, question_id=3)])
    assert metrics.wall_clock_ratio(frame, "dynamic") == (8 / 3.0) / (8 / 4.0)


def test_without_a_baseline_there_is_no_ratio():
    table = metrics.summary(metrics.frame(TURNS[3:]), ["dynamic"], ASKED)
    assert math.isnan(table.tpi_ratio[0]) and math.isnan(table.wall_clock_ratio[0])
    assert table.tokens_per_inference[0] == 1.6 and table.compared_answers[0] == 0


def test_no_turns_at_all():
    frame = metrics.frame([])
    assert math.isnan(metrics.tokens_per_inference(frame)) and math.isnan(metrics.tokens_per_second(frame))
    assert metrics.equal_to_baseline(frame, "dynamic", ASKED) == (0, 0)
    assert metrics.accept_length_histogram(frame).empty
