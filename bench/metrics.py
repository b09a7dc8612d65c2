"""Every number once. A frame has one row a finished turn; failed turns are in no number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:  # records load torch, which readers of answer files do not need
    from bench.records import Turn

BASELINE = "greedy"
PAIR = ["question_id", "choice", "turn"]


def frame(turns: Iterable[Turn]) -> pd.DataFrame:
    """One row a finished turn, in the order given; `tokens` and `steps` are counted here."""
    rows = [
        {
            "question_id": turn.question_id, "category": turn.category, "decoder": turn.decoder, "choice": turn.choice,
            "turn": turn.turn, "tokens": len(turn.token_ids), "steps": len(turn.accept_lengths),
            "prefill_s": turn.prefill_s, "decode_s": turn.decode_s, "accept_lengths": turn.accept_lengths,
            "token_ids": turn.token_ids, "finish_reason": turn.finish_reason,
        }
        for turn in turns
        if not turn.failed
    ]  # fmt: skip
    columns = ["question_id", "category", "decoder", "choice", "turn", "tokens", "steps", "prefill_s", "decode_s"]
    return pd.DataFrame(rows, columns=None if rows else [*columns, "accept_lengths", "token_ids", "finish_reason"])


def tokens_per_inference(turns: pd.DataFrame) -> float:
    """Committed tokens / verify forwards, pooled over the turns. The prefill is in neither. Greedy's is exactly 1."""
    return _ratio(turns.tokens.sum(), turns.steps.sum())


def tokens_per_second(turns: pd.DataFrame) -> float:
    """Committed tokens / seconds of decoding, pooled over the turns; without the prefill."""
    return _ratio(turns.tokens.sum(), turns.decode_s.sum())


def paired(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The turns that both decoders finished, in the same order: (decoder's, baseline's)."""
    ours = turns[turns.decoder == decoder].set_index(PAIR)
    theirs = turns[turns.decoder == baseline].set_index(PAIR)
    both = ours.index.intersection(theirs.index)
    return ours.loc[both], theirs.loc[both]


def tpi_ratio(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Tokens per inference over the baseline's, on the turns that both finished."""
    ours, theirs = paired(turns, decoder, baseline)
    return _ratio(tokens_per_inference(ours), tokens_per_inference(theirs))


def wall_clock_ratio(turns: pd.DataFrame, decoder: str, baseline: str = BASELINE) -> float:
    """Tokens per second over the baseline's, on the turns that both finished, in the same run on the same machine."""
    ours, theirs = paired(turns, decoder, baseline)
    return _ratio(tokens_per_second(ours), tokens_per_second(theirs))


def equal_to_baseline(turns: pd.DataFrame, decoder: str, asked: Mapping[int, int], baseline: str = BASELINE) -> tuple[int, int]:
    """(answers with the same tokens as the baseline's in every turn, answers that both finished).

    An answer is one choice of one question with all its turns; `asked` says how many a question has.
    """
    ours, theirs = paired(turns, decoder, baseline)
    if ours.empty:
        return 0, 0
    same = pd.Series([a == b for a, b in zip(ours.token_ids, theirs.token_ids, strict=True)], index=ours.index)
    by_answer = same.groupby(level=["question_id", "choice"])
    wanted = [asked[question_id] for question_id, _ in by_answer.size().index]
    whole = by_answer.all()[by_answer.size() == wanted]
    return int(whole.sum()), len(whole)


def accept_length_histogram(turns: pd.DataFrame) -> pd.Series:
    """Share of the steps that committed 1, 2, ... tokens; its mean is tokens per inference."""
    lengths = pd.Series([length for each in turns.accept_lengths for length in each], dtype="int64")
    if lengths.empty:
        return pd.Series(dtype="float64")
    return lengths.value_counts(normalize=True).reindex(range(1, lengths.max() + 1), fill_value=0.0)


def summary(turns: pd.DataFrame, decoders: Iterable[str], asked: Mapping[int, int]) -> pd.DataFrame:
    """The headline: one row a decoder. Ratios are NaN where no baseline ran. `asked`: turns of each question."""
    rows = []
    for decoder in decoders:
        own = turns[turns.decoder == decoder]
        same, compared = equal_to_baseline(turns, decoder, asked)
        rows.append(
            {
                "decoder": decoder,
                "turns": len(own),
                "tokens": int(own.tokens.sum()),
                "tokens_per_inference": tokens_per_inference(own),
                "tokens_per_second": tokens_per_second(own),
                "tpi_ratio": tpi_ratio(turns, decoder),
                "wall_clock_ratio": wall_clock_ratio(turns, decoder),
                "equal_answers": same,
                "compared_answers": compared,
                "accept_length_histogram": [round(share, 4) for share in accept_length_histogram(own)],
            }
        )
    return pd.DataFrame(rows)


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")
