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
