"""Runs and answer files made up for the tests of reports: no model, but every file as the real thing writes it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bench.store.records import Turn

ENVIRONMENT = {
    "python": "3.11",
    "torch": "2.9",
    "transformers": "5.0",
    "device": "a machine",
    "dtype": "float32",
    "threads": 1,
}


def make_turn(decoder: str = "dynamic", accepts=(3, 1), seconds: float = 1.0, **changes) -> Turn:
    fields = dict(
        question_id=1, category="math", decoder=decoder, choice=0, turn=1, temperature=0.0, seed=0, prompt_tokens=5,
        token_ids=list(range(sum(accepts))), accept_lengths=list(accepts), nodes=[64] * len(accepts), prefill_s=0.25,
        decode_s=seconds, finish_reason="eos", error=None, text="",
    )  # fmt: skip
    return Turn(**{**fields, **changes})


def random_turns(
    decoders, categories=("math", "coding"), questions=5, steps=40, missing=()
) -> list[Turn]:
    """Two turns a question; the later a decoder, the longer its accept lengths. `missing`: (decoder, category) left out."""
    random = np.random.default_rng(0)
    turns = []
    for at in range(questions * len(categories)):
        category = categories[at % len(categories)]
        for place, decoder in enumerate(decoders):
            for turn in (1, 2):
                if (decoder, category) not in missing:
                    accepts = (1 + random.binomial(4, min(0.9, 0.11 * place), steps)).tolist()
                    seconds = sum(accepts) * 0.01 * random.uniform(0.9, 1.1) / (1 + 0.1 * place)
                    nodes = [1 if place == 0 else 64] * steps
                    turns.append(
                        make_turn(
                            decoder,
                            accepts,
                            seconds,
                            question_id=at,
                            category=category,
                            turn=turn,
                            nodes=nodes,
                        )
                    )
    return turns


def write_run(folder: Path, turns: list[Turn], **changes) -> Path:
    """A run's folder with these turns."""
    folder.mkdir(parents=True, exist_ok=True)
    decoders = list(dict.fromkeys(turn.decoder for turn in turns))
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
        "config": {"decoders": decoders, "num_choices": 1, "temperature": 0.0, "acceptance": "lossless"},
        "model": {"name": "demo"}, "questions": {"name": "sample"}, "question_turns": asked, "sessions": [session],
        **session, "start_unix": 0.0, "end": "2026-01-01T01:00:00+00:00",
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run | changes))
    (folder / "turns.jsonl").write_text("".join(json.dumps(asdict(turn)) + "\n" for turn in turns))
    return folder
