"""Confidence intervals: percentile bootstrap over questions, with a fixed seed.

Questions are drawn, not turns, because the turns and choices of one question belong together. Two
decoders' answers to a question belong together as well: the bootstrap is paired. An interval says
how far the number would vary with other questions of the same kind. It does not cover the noise of
a machine that was slow for a while.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

CONFIDENCE = 0.95
RESAMPLES = 2000
_BATCH = 4_000_000  # Resampled numbers at a time; bounds the memory.


@dataclass(frozen=True)
class Estimate:
    """A number and its interval. NaN: unknown."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def words(self) -> str:
        """How a ratio compares with 1, in words.

        >>> Estimate(1.2, 1.1, 1.3).words, Estimate(0.9, 0.8, 0.95).words
        ('higher', 'lower')
        >>> Estimate(1.2, 0.9, 1.4).words, Estimate(1.2).words
        ('no significant difference', 'unknown')
        """
        if np.isnan(self.low):
            return "unknown"
        if self.low > 1:
            return "higher"
        return "lower" if self.high < 1 else "no significant difference"


def pooled_interval(*sums: np.ndarray) -> tuple[float, float]:
    """(low, high) of sum(a) / sum(b), or of (sum(a) / sum(b)) / (sum(c) / sum(d)).

    sums: a and b, or a, b, c and d, each [questions]: sums over a question's turns. The bounds are
    NaN for fewer than two questions, or if a resample divides by 0.
    """
    questions = len(sums[0])
    if questions < 2:
        return float("nan"), float("nan")

    def statistic(*drawn: np.ndarray, axis: int) -> np.ndarray:
        above, below, *baseline = (part.sum(axis) for part in drawn)
        value = above / below
        return value * baseline[1] / baseline[0] if baseline else value

    # All tokens of a resample may be 0.
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            tuple(np.asarray(part, dtype=float) for part in sums),
            statistic,
            paired=True,
            vectorized=True,
            confidence_level=CONFIDENCE,
            n_resamples=RESAMPLES,
            batch=max(1, _BATCH // questions),
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
    if not np.isfinite(interval).all():
        return float("nan"), float("nan")
    return float(interval.low), float(interval.high)
