"""How sure a number is: percentile bootstrap over questions, with a fixed seed.

Questions are drawn, not turns: the turns and choices of one question belong together, and so do two decoders' answers to it
(the bootstrap is paired). The interval says what other questions of the same kind would have given; it knows nothing of a
machine that was slow for a while.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.stats import DegenerateDataWarning, bootstrap

CONFIDENCE = 0.95
RESAMPLES = 2000
_BATCH = 4_000_000  # resampled numbers at a time: bounds the memory


@dataclass(frozen=True)
class Estimate:
    """A number and its interval; NaN where there is none."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def words(self) -> str:
        """What an interval of a ratio says about 1.

        >>> Estimate(1.2, 1.1, 1.3).words, Estimate(0.9, 0.8, 0.95).words, Estimate(1.2, 0.9, 1.4).words
        ('higher', 'lower', 'no significant difference')
        """
        if np.isnan(self.low):
            return "unknown"
        return (
            "higher" if self.low > 1 else "lower" if self.high < 1 else "no significant difference"
        )


def pooled_interval(*sums: np.ndarray) -> tuple[float, float]:
    """The interval of sum(a) / sum(b), or of (sum(a) / sum(b)) / (sum(c) / sum(d)), for the sums [questions] of each question.

    NaN for fewer than two questions, and where so many of them are without a token that draws have nothing to divide by.
    """
    questions = len(sums[0])
    if questions < 2:
        return float("nan"), float("nan")

    def pooled(*drawn: np.ndarray, axis: int) -> np.ndarray:
        above, below, *rest = (each.sum(axis) for each in drawn)
        value = above / below
        return value * rest[1] / rest[0] if rest else value

    with (
        np.errstate(divide="ignore", invalid="ignore"),
        warnings.catch_warnings(),
    ):  # a draw without a single token
        warnings.simplefilter("ignore", DegenerateDataWarning)
        interval = bootstrap(
            tuple(np.asarray(each, dtype=float) for each in sums),
            pooled,
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
