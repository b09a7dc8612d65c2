"""Tokens per inference and per second, and their ratios to a baseline."""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.store.question_id import QuestionId
from decoders.spec import BASELINE

PAIR = ["question_id", "choice", "turn"]  # Equal for the same turn of two decoders.


def tokens_per_inference(turns: pd.DataFrame) -> float:
    """Committed tokens / verify forwards, pooled over the turns. Greedy's is exactly 1.

    The prefill is in neither number.
    """
    return _pooled(turns, "steps")


def tokens_per_second(turns: pd.DataFrame) -> float:
    """Committed tokens / seconds of decoding, pooled over the turns that were timed."""
    return _pooled(turns, "decode_s")


def tokens_per_second_with_prefill(turns: pd.DataFrame) -> float:
    """Committed tokens / seconds of prefill and decoding, pooled over the turns that were timed."""
    return _pooled(turns, "wall_s")


def paired(
    turns: pd.DataFrame, decoder: str, baseline: str = BASELINE
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The turns that both decoders finished, in the same order: (decoder's, baseline's)."""
    ours = turns[turns.decoder == decoder].set_index(PAIR)
    theirs = turns[turns.decoder == baseline].set_index(PAIR)
    both = ours.index.intersection(theirs.index)
    return ours.loc[both], theirs.loc[both]


def wall_clock_ratio_by_question(
    turns: pd.DataFrame, decoder: str, baseline: str = BASELINE, seconds: str = "decode_s"
) -> pd.Series:
    """Tokens per second / the baseline's, by question_id, without the prefill.

    seconds: "wall_s" counts whole turns, with the prefill.

    A question that was answered several times has the ratio of the medians over its choices, as
    answers of a few tokens take a few milliseconds and vary.
    """
    ours, theirs = both_known(*paired(turns, decoder, baseline), seconds)
    return _median_speed(ours, seconds) / _median_speed(theirs, seconds)


def repeatability_by_question(
    turns: pd.DataFrame, decoder: str, seconds: str = "decode_s"
) -> pd.Series:
    """Tokens per second of a decoder's odd choices / its even choices, by question_id; medians.

    seconds: as in `wall_clock_ratio_by_question`. The ratio would be 1 without noise. A question
    with one choice has none.
    """
    timed = turns[(turns.decoder == decoder) & turns[seconds].notna()].set_index(PAIR)
    is_odd = timed.index.get_level_values("choice") % 2 == 1
    return (_median_speed(timed[is_odd], seconds) / _median_speed(timed[~is_odd], seconds)).dropna()


def _median_speed(turns: pd.DataFrame, seconds: str) -> pd.Series:
    """Tokens per second by question_id: the median over its choices. `turns` has the index PAIR."""
    sums = turns.groupby(level=["question_id", "choice"])[["tokens", seconds]].sum()
    return (sums.tokens / sums[seconds]).groupby(level="question_id").median()


def ratio_of(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> float:
    """(sum of our tokens / sum of our `column`) / (the same of theirs), of paired turns."""
    ours, theirs = both_known(ours, theirs, column)
    return ratio(_pooled(ours, column), _pooled(theirs, column))


def both_known(
    ours: pd.DataFrame, theirs: pd.DataFrame, column: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The paired turns that have a value in the column on both sides."""
    known = (ours[column].notna() & theirs[column].notna()).to_numpy()
    return ours[known], theirs[known]


def equal_to_baseline(
    turns: pd.DataFrame, decoder: str, asked: Mapping[QuestionId, int], baseline: str = BASELINE
) -> tuple[int, int]:
    """(answers with the same tokens as the baseline's in every turn, answers that both finished).

    An answer is one choice of one question with all its turns. `asked`: how many turns a question
    has, by question_id. Answers whose tokens are not known are not compared.
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


def _pooled(turns: pd.DataFrame, column: str) -> float:
    """Sum of the tokens / sum of the column, over the turns where it is known."""
    known = turns[turns[column].notna()]
    return ratio(known.tokens.sum(), known[column].sum())


def ratio(above: float, below: float) -> float:
    """above / below. NaN where there is nothing to divide by, or far too little."""
    value = float(above) / float(below) if below else math.nan
    return value if math.isfinite(value) else math.nan
