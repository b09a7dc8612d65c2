"""The short form of scripts/fuzz.py, without coverage to guide it, and what the long one found."""

import json
import random
from dataclasses import asdict

import pytest
from fuzz import ANSWER, CHOICE, QUESTION, RUN, SINGLE, TARGETS, TURN, feed, mutate, seed_file

HUGE = 10**400
# By target: a field, and a value that once was no clear error.
FOUND = {
    "turns": [
        ("prefill_s", HUGE), ("decode_s", -HUGE), ("token_ids", [HUGE] * 3), ("token_ids", [2**63] * 3), ("nodes", [2**40] * 2),
        ("nodes", [0, 4]), ("text", "\ud800"),
    ],
    "questions": [("category", "\ud800"), ("question_id", HUGE)],
    "answers": [("choices", [CHOICE | {"new_tokens": [HUGE, 1]}]), ("model_id", [])],
    "judgments": [("score", HUGE), ("model", {})],
    "tree": [("frequency", ["0.5", "0.3", "0.2"])],
    "calibration": [("floor", HUGE), ("head_weight", 1), ("coverage", [[]]), ("beyond", None)],
    "vocabulary": [("tokens", [HUGE]), ("tokens", {}), ("tokens", [[]]), ("tokens", [1.0])],
    "run": [
        ("question_turns", {}), ("question_turns", {"01": 1}), ("schema_version", 10**4000), ("questions", {}),
        ("sessions", [None]), ("question_texts", {"1": None}), ("config", RUN["config"] | {"decoders": []}),
    ],
}  # fmt: skip
SOUND = {"turns": asdict(TURN), "questions": QUESTION, "answers": ANSWER, "judgments": SINGLE, "run": RUN,
         **{target: TARGETS[target][1][0] for target in ("tree", "calibration", "vocabulary")}}  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_hostile_files_are_read_or_refused_in_one_line(target, tmp_path):
    rng = random.Random(0)
    data = seed_file(target)
    feed(target, data, tmp_path)
    for _ in range(300):
        feed(target, mutate(data, rng), tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_stays_mended(target, tmp_path):
    for field, value in FOUND[target]:
        feed(target, json.dumps(SOUND[target] | {field: value}).encode(), tmp_path)
