"""The short form of scripts/fuzz.py, without coverage to guide it, and what the long one found."""

import json
import random
import sys
from dataclasses import asdict

import fuzz
import pytest

from checking.mutation import mutate
from checking.targets import ANSWER, CHOICE, QUESTION, RUN, SINGLE, TARGETS, TURN
from tests.helpers.commands import script

HUGE = 10**400
# By target: a field, and a value that once was no clear error.
FOUND = {
    "turns": [
        ("prefill_s", HUGE), ("decode_s", -HUGE), ("token_ids", [HUGE] * 3),
        ("token_ids", [2**63] * 3), ("nodes", [2**40] * 2), ("nodes", [0, 4]), ("text", "\ud800"),
    ],
    "questions": [("category", "\ud800"), ("question_id", HUGE)],
    "answers": [("choices", [CHOICE | {"new_tokens": [HUGE, 1]}]), ("model_id", [])],
    "judgments": [("score", HUGE), ("model", {})],
    "tree": [("frequency", ["0.5", "0.3", "0.2"])],
    "calibration": [
        ("floor", HUGE), ("head_weight", 1), ("coverage", [[]]), ("beyond", None),
    ],
    "vocabulary": [("tokens", [HUGE]), ("tokens", {}), ("tokens", [[]]), ("tokens", [1.0])],
    "run": [
        ("question_turns", {}), ("question_turns", {"01": 1}), ("schema_version", 10**4000),
        ("questions", {}), ("sessions", [None]), ("question_texts", {"1": None}),
        ("config", RUN["config"] | {"decoders": []}),
    ],
}  # fmt: skip
SOUND = {
    "turns": asdict(TURN),
    "questions": QUESTION,
    "answers": ANSWER,
    "judgments": SINGLE,
    "run": RUN,
    **{name: TARGETS[name].rows[0] for name in ("tree", "calibration", "vocabulary")},
}


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_files_are_read_or_refused_in_one_line(name, tmp_path):
    rng = random.Random(0)
    target = TARGETS[name]
    data = target.sound_file()
    file = tmp_path / "file"
    file.write_bytes(data)
    target.read(file)  # Raises nothing: the sound file is read.
    for _ in range(300):
        target.feed(mutate(data, rng), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_stays_mended(name, tmp_path):
    for field, value in FOUND[name]:
        TARGETS[name].feed(json.dumps(SOUND[name] | {field: value}).encode(), tmp_path)


def test_the_script_offers_every_target():
    assert tuple(TARGETS) == fuzz.TARGETS


def test_a_missing_fuzzer_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "atheris", None)
    assert script(fuzz.main, "turns", "--corpus", tmp_path / "corpus") == 2
    assert "pip install -e '.[fuzz]'" in capsys.readouterr().err
