"""The frame that every number is computed from: one row for each finished turn."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from bench.metrics.repetition import answer_class
from bench.store.answer_files import Answer
from bench.store.turn import Turn

# The columns of a frame. Where the file lacks a value, a number is NaN, and an array is None.
COLUMNS = {
    "question_id": "int64",  # "object" where some are texts.
    "category": "object",
    "decoder": "object",
    "choice": "int64",
    "turn": "int64",
    "tokens": "int64",  # Committed tokens.
    "steps": "int64",  # Verify forwards.
    "prefill_s": "float64",
    "decode_s": "float64",
    "wall_s": "float64",  # Prefill and decoding.
    "accept_lengths": "object",  # [steps] tokens that each step committed.
    "nodes": "object",  # [steps] nodes that each step verified.
    "token_ids": "object",  # [tokens]
    "answer_class": "object",  # A class of `repetition`. None where the tokens are not known.
}


def table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The frame of these rows. Columns that a row lacks are filled in.

    A time that cannot be one (infinite, or below 0) becomes NaN.
    """
    made = pd.DataFrame(list(rows), columns=list(COLUMNS))
    has_texts = any(isinstance(each, str) for each in made.question_id)
    made = made.astype(COLUMNS | ({"question_id": "object"} if has_texts else {}))
    for name in ("prefill_s", "decode_s", "wall_s"):
        made[name] = made[name].where(np.isfinite(made[name]) & (made[name] >= 0))
    return made


def frame(turns: Iterable[Turn]) -> pd.DataFrame:
    """The frame of a run's turns, in the order given, without those that failed."""
    return table(
        {
            "question_id": turn.question_id,
            "category": turn.category,
            "decoder": turn.decoder,
            "choice": turn.choice,
            "turn": turn.turn,
            "tokens": len(turn.token_ids),
            "steps": len(turn.accept_lengths),
            "prefill_s": turn.prefill_s,
            "decode_s": turn.decode_s,
            "wall_s": turn.prefill_s + turn.decode_s,
            "accept_lengths": np.array(turn.accept_lengths, dtype=np.int32),
            "nodes": np.array(turn.nodes, dtype=np.int32),
            "token_ids": np.array(turn.token_ids, dtype=np.int64),
            "answer_class": answer_class(np.array(turn.token_ids, dtype=np.int64)),
        }
        for turn in turns
        if not turn.failed
    )


def answers_frame(answers: Iterable[Answer]) -> pd.DataFrame:
    """The frame of an answer file: the turns that are answered and have tokens and steps.

    A last step that holds more tokens than were kept of it has the accept length that was kept.
    Answer files have no prefill_s, decode_s, nodes, token_ids and answer_class.
    """
    return table(
        {
            "question_id": answer.question_id,
            "category": answer.category,
            "decoder": answer.model_id,
            "choice": index,
            "turn": turn + 1,
            "tokens": choice.tokens[turn],
            "steps": choice.steps[turn],
            "wall_s": choice.wall_s[turn] if choice.wall_s else None,
            "accept_lengths": kept_lengths(choice.accept_lengths[turn], choice.tokens[turn])
            if choice.accept_lengths
            else None,
        }
        for answer in answers
        for index, choice in enumerate(answer.choices)
        if choice.steps is not None and choice.tokens is not None
        for turn in range(len(choice.turns))
        if choice.answered(turn + 1)
    )


def kept_lengths(lengths: Sequence[int], tokens: int) -> np.ndarray:
    """Accept lengths of a turn [steps], the last one without what is beyond the turn's tokens.

    They stay as they are where that is not the reason why they do not add up.
    """
    kept = np.array(lengths, dtype=np.int32)
    beyond = sum(lengths) - tokens
    if len(kept) and 0 < beyond < kept[-1]:
        kept[-1] -= beyond
    return kept
