"""Answers that repeat themselves."""

import numpy as np

from bench import metrics
from tests.helpers.runs import turn_of

LOOP = [1, 2, 3, 4, 5] * 4


def test_a_loop_repeats_and_a_text_does_not():
    assert metrics.repeated_share(np.arange(50)) == 0
    assert metrics.repeated_share(np.array(LOOP)) == 1 - 5 / 17  # 17 4-grams, 5 of them distinct.
    assert metrics.repeated_share(np.array([7, 7, 7])) == 0


def test_repeating_answers_are_a_class_of_their_own():
    turns = [turn_of("greedy", LOOP, [1] * 20), turn_of("greedy", [1, 2], [1, 1], turn=2)]
    turns += [turn_of("dynamic", LOOP, [5] * 4), turn_of("dynamic", [1, 2], [1, 1], turn=2)]
    frame = metrics.frame(turns)
    table = metrics.by(frame, "answer_class", {"dynamic": "greedy"}).set_index("answer_class")
    assert table.tokens_per_inference.to_dict() == {"repeating": 5.0, "other": 1.0}
    row = metrics.decoder_row(frame, "dynamic", {1: 2})
    assert (row["repeating_turns"], row["repeating_tokens"]) == (1, 20)


def test_a_turn_has_the_class_of_its_baselines_turn():
    """By its own class, a row would hold turns that its ratio does not compare."""
    turns = [turn_of("greedy", LOOP, [1] * 20, 2.0), turn_of("greedy", [1, 2], [1, 1], turn=2)]
    turns += [turn_of("dynamic", list(range(20)), [5] * 4, 1.0)]
    turns += [turn_of("dynamic", LOOP, [4] * 5, 5.0, turn=2)]
    table = metrics.by_answer_class(metrics.frame(turns), {"greedy": "greedy", "dynamic": "greedy"})
    table = table.set_index(["answer_class", "decoder"])
    assert table.turns.tolist() == [1, 1, 1, 1]
    assert table.wall_clock_ratio["repeating", "dynamic"] == 2
    assert table.tokens_per_second["other", "dynamic"] == 4


def test_whether_answers_repeat_themselves_may_be_unknown():
    frame = metrics.frame([turn_of("greedy", LOOP, [1] * 20)]).assign(answer_class=None)
    assert np.isnan(metrics.decoder_row(frame, "greedy", {1: 1})["repeating_turns"])
    [row] = metrics.by_answer_class(
        metrics.frame([turn_of("dynamic", LOOP, [1] * 20)]), {"dynamic": None}
    ).to_dict("records")
    assert row["answer_class"] == "repeating"
