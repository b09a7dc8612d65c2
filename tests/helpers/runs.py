"""Made-up runs for tests of reports: no model, but every file as the real thing writes it."""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.store.turn import Turn

ENVIRONMENT = {
    "python": "3.11",
    "torch": "2.9",
    "transformers": "5.0",
    "device": "a machine",
    "dtype": "float32",
    "threads": 1,
}


def make_turn(
    decoder: str = "dynamic", accepts: Sequence[int] = (3, 1), seconds: float = 1.0, **changes
) -> Turn:
    """A finished turn with these accept lengths and seconds of decoding, and 0.25 s of prefill."""
    fields = {
        "question_id": 1,
        "category": "math",
        "decoder": decoder,
        "choice": 0,
        "turn": 1,
        "temperature": 0.0,
        "seed": 0,
        "prompt_tokens": 5,
        "token_ids": list(range(sum(accepts))),
        "accept_lengths": list(accepts),
        "nodes": [64] * len(accepts),
        "prefill_s": 0.25,
        "decode_s": seconds,
        "finish_reason": "eos",
        "error": None,
        "text": "",
    }
    return Turn(**{**fields, **changes})


def turn_of(
    decoder: str, tokens: list[int], accepts: list[int], seconds: float = 1.0, **changes
) -> Turn:
    """The same with these tokens."""
    return make_turn(decoder, accepts, seconds, **{"token_ids": tokens, **changes})


# Two questions that greedy and dynamic finished, and one that failed.
TWO_DECODERS = [
    turn_of("greedy", [7, 8, 9, 1], [1, 1, 1, 1], 2.0),
    turn_of("greedy", [5, 1], [1, 1], 1.0, turn=2),
    turn_of("greedy", [3, 1], [1, 1], 1.0, question_id=2, category="coding"),
    turn_of("dynamic", [7, 8, 9, 1], [3, 1], 1.0),
    turn_of("dynamic", [5, 1], [2], 0.5, turn=2),
    turn_of("dynamic", [4, 1], [1, 1], 1.5, question_id=2, category="coding"),
    turn_of("dynamic", [], [], 0.0, question_id=3, finish_reason="error", error="boom"),
]
TURNS_ASKED = {1: 2, 2: 1, 3: 1}  # By question_id, of TWO_DECODERS.


def random_turns(
    decoders: Sequence[str],
    categories: Sequence[str] = ("math", "coding"),
    questions: int = 5,
    steps: int = 40,
    missing: Collection[tuple[str, str]] = (),
) -> list[Turn]:
    """Two turns a question, `questions` a category. The later a decoder, the longer it accepts.

    missing: (decoder, category) pairs without turns.
    """
    random = np.random.default_rng(0)
    turns = []
    for question_id in range(questions * len(categories)):
        category = categories[question_id % len(categories)]
        for place, decoder in enumerate(decoders):
            for turn in (1, 2):
                if (decoder, category) in missing:
                    continue
                accepts = (1 + random.binomial(4, min(0.9, 0.11 * place), steps)).tolist()
                seconds = sum(accepts) * 0.01 * random.uniform(0.9, 1.1) / (1 + 0.1 * place)
                fields = {
                    "question_id": question_id,
                    "category": category,
                    "turn": turn,
                    "nodes": [1 if place == 0 else 64] * steps,
                }
                turns.append(make_turn(decoder, accepts, seconds, **fields))
    return turns


def run_json(turns: Sequence[Turn] = (), **changes) -> dict:
    """The run.json of a run with these turns."""
    asked: dict[str, int] = {}
    for turn in turns:
        asked[str(turn.question_id)] = max(turn.turn, asked.get(str(turn.question_id), 0))
    session = {
        "command": [],
        "git": {},
        "environment": ENVIRONMENT,
        "start": "2026-01-01T00:00:00+00:00",
    }
    run = {
        "schema_version": 1,
        "config": {
            "decoders": list(dict.fromkeys(turn.decoder for turn in turns)),
            "num_choices": 1,
            "temperature": 0.0,
            "acceptance": "lossless",
        },
        "model": {"name": "demo"},
        "questions": {"name": "sample"},
        "question_turns": asked,
        "sessions": [session],
        **session,
        "start_unix": 0.0,
        "end": "2026-01-01T01:00:00+00:00",
    }
    return run | changes


def write_run(folder: Path, turns: Sequence[Turn], **changes) -> Path:
    """A run's folder with these turns. changes: of its run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run_json(turns, **changes)))
    (folder / "turns.jsonl").write_text("".join(json.dumps(asdict(turn)) + "\n" for turn in turns))
    return folder
