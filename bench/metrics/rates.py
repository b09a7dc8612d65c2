"""Tokens per inference and per second, and their ratios to a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:  # records load torch, which readers of answer files do not need
    from bench.store.records import Turn

BASELINE = "greedy"
PAIR = ["question_id", "choice", "turn"]

# A turn's row. NaN (None in the last three) where its file does not tell.
COLUMNS = {
    "question_id": "int64", "category": "object", "decoder": "object", "choice": "int64", "turn": "int64",
    "tokens": "int64",  # committed
    "steps": "int64",  # verify forwards
    "prefill_s": "float64", "decode_s": "float64",
    "wall_s": "float64",  # both
    "accept_lengths": "object",  # [steps] tokens that each step committed
    "nodes": "object",  # [steps] nodes that each step verified
    "token_ids": "object",  # [tokens]
}  # fmt: skip


def table(rows: Iterable[Mapping[str, object]]) -> pd.DataFrame:
    """The frame of rows that may lack columns. A time that is none (NaN, infinite or below 0) becomes NaN."""
    made = pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)
    for name in ("prefill_s", "decode_s", "wall_s"):
        made[name] = made[name].where(np.isfinite(made[name]) & (made[name] >= 0))
    return made


def frame(turns: Iterable[Turn]) -> pd.DataFrame:
    """One row a finished turn, in the order given; `tokens` and `steps` are counted here."""
    return table(
        {
            "question_id": turn.question_id, "category": turn.category, "decoder": turn.decoder, "choice": turn.choice,
            "turn": turn.turn, "tokens": len(turn.token_ids), "steps": len(turn.accept_lengths),
            "prefill_s": turn.prefill_s, "decode_s": turn.decode_s, "wall_s": turn.prefill_s + turn.decode_s,
            "accept_lengths": np.array(turn.accept_lengths, dtype=np.int32), "nodes": np.array(turn.nodes, dtype=np.int32),
            "token_ids": np.array(turn.token_ids, dtype=np.int64),
        }
        for turn in turns
        if not turn.failed
    )  # fmt: skip


def tokens_per_inference(turns: pd.DataFrame) -> float:
    """Committed tokens / verify forwards, pooled over the turns. The prefill is in neither. Greedy's is exactly 1."""
    return _pooled(turns, "steps")


def tokens_per_second(turns: pd.DataFrame) -> float:
    """Committed tokens / seconds of decoding, pooled over the turns that were timed; without the prefill."""
    return _pooled(turns, "decode_s")


def tokens_per_second_with_prefill(turns: pd.DataFrame) -> float:
    """Committed tokens / (seconds of prefill + seconds of decoding), pooled over the turns that were timed."""
    return _pooled(turns, "wall_s")


def paired(
    turns: pd.DataFrame, decoder: str, baseline: str = BASELINE
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The turns that both decoders finished, in the same order: (decoder's, baseline's)."""
    ours = turns[turns.decoder == decoder].set_index(PAIR)
    theirs = turns[turns.decoder == baseline].set_index(PAIR)
    both = ours.index.intersection(theirs.index)
    return ours.loc[both], theirs.loc[both]


def tpi_ratio(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Tokens per inference over the baseline's, on the turns that both finished."""
    return ratio_of(*paired(turns, decoder, baseline), "steps")


def wall_clock_ratio(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Tokens per second (without prefill) over the baseline's, on the turns that both finished and both were timed in."""
    return ratio_of(*paired(turns, decoder, baseline), "decode_s")


def wall_clock_ratio_with_prefill(
    turns: pd.DataFrame, decoder: str, baseline: str = BASELINE
) -> float:
    """The same of tokens per second with prefill: all that an answer file's wall_time can give."""
    return ratio_of(*paired(turns, decoder, baseline), "wall_s")


def wall_clock_ratio_by_question(
    turns: pd.DataFrame, decoder: str, baseline: str = BASELINE
) -> pd.Series:
    """Tokens per second (without prefill) over the baseline's, by question_id.

    Answers of a few tokens take a few milliseconds, so what is compared of a question that was answered several times are the
    medians over its choices.
    """
    ours, theirs = both_known(*paired(turns, decoder, baseline), "decode_s")
    return _median_speed(ours) / _median_speed(theirs)


def repeatability_by_question(turns: pd.DataFrame, decoder: str) -> pd.Series:
    """A decoder's tokens per second over its own, by question_id: medians of its choices 1, 3, ... over those of 0, 2, ...

    What differs from 1 here is no difference between decoders. Of one choice there is nothing to compare.
    """
    own = turns[(turns.decoder == decoder) & turns.decode_s.notna()].set_index(PAIR)
    odd = own.index.get_level_values("choice") % 2 == 1
    return (_median_speed(own[odd]) / _median_speed(own[~odd])).dropna()


def _median_speed(turns: pd.DataFrame) -> pd.Series:
    sums = turns.groupby(level=["question_id", "choice"])[["tokens", "decode_s"]].sum()
    return (sums.tokens / sums.decode_s).groupby(level="question_id").median()


def ratio_of(ours: pd.DataFrame, theirs: pd.DataFrame, below: str) -> float:
    """(sum of our tokens / sum of our `below`) / (the same of theirs), of paired turns."""
    ours, theirs = both_known(ours, theirs, below)
    return ratio(_pooled(ours, below), _pooled(theirs, below))


def both_known(
    ours: pd.DataFrame, theirs: pd.DataFrame, column: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Of paired turns those that have the column on both sides."""
    known = (ours[column].notna() & theirs[column].notna()).to_numpy()
    return ours[known], theirs[known]


def equal_to_baseline(
    turns: pd.DataFrame, decoder: str, asked: Mapping[int, int], baseline: str = BASELINE
) -> tuple[int, int]:
    """(answers with the same tokens as the baseline's in every turn, answers that both finished).

    An answer is one choice of one question with all its turns; `asked` says how many a question has. Answers whose tokens
    are not known are not compared.
    """
    ours, theirs = paired(turns, decoder, baseline)
    ours, theirs = both_known(ours, theirs, "token_ids")
    if ours.empty:
        return 0, 0
    same = pd.Series(
        [np.array_equal(a, b) for a, b in zip(ours.token_ids, theirs.token_ids, strict=True)],
        index=ours.index,
    )
    by_answer = same.groupby(level=["question_id", "choice"])
    wanted = [asked[question_id] for question_id, _ in by_answer.size().index]
    whole = by_answer.all()[by_answer.size() == wanted]
    return int(whole.sum()), len(whole)


def _pooled(turns: pd.DataFrame, below: str) -> float:
    known = turns[turns[below].notna()]
    return ratio(known.tokens.sum(), known[below].sum())


def ratio(above: float, below: float) -> float:
    return float(above / below) if below else float("nan")
