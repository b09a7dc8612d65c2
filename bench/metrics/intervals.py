"""Confidence intervals: jackknife over questions, on the logarithm, with Student's t.

Questions are left out one at a time, not turns, because the turns and choices of one question
belong together. Two decoders' answers to a question belong together as well, and are left out
together: the interval is paired. An interval says how far the number would vary with other
questions of the same kind. It does not cover the noise of a machine that was slow for a while.

Few questions make wide intervals. About 5 % of reports on two equal decoders find a difference,
with 2 questions as with 80.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

CONFIDENCE = 0.95
ROUNDING = 1e-12  # Logarithms that differ by less are equal.


@dataclass(frozen=True)
class Estimate:
    """A number and its interval. NaN: unknown."""

    value: float
    low: float = float("nan")
    high: float = float("nan")

    @property
    def words(self) -> str:
        """How a ratio compares with 1, in words. Bounds count as they are printed: two decimals.

        >>> Estimate(1.2, 1.1, 1.3).words, Estimate(0.9, 0.8, 0.95).words
        ('higher', 'lower')
        >>> Estimate(1.2, 0.9, 1.4).words, Estimate(1.2).words
        ('no significant difference', 'unknown')
        >>> Estimate(1.1, 1.004, 1.2).words
        'no significant difference'
        """
        if np.isnan(self.low):
            return "unknown"
        if round(self.low, 2) > 1:
            return "higher"
        return "lower" if round(self.high, 2) < 1 else "no significant difference"


def pooled_interval(*sums: np.ndarray) -> tuple[float, float]:
    """(low, high) of sum(a) / sum(b), or of (sum(a) / sum(b)) / (sum(c) / sum(d)).

    sums: a and b, or a, b, c and d, each [questions]: sums over a question's turns. The bounds are
    NaN for fewer than two questions, or where a sum is 0 once one question is left out.

    Questions differ in length, and a long one counts for more. Student's t therefore has as many
    degrees of freedom as Kish's effective number of questions, less one.
    """
    parts = np.array(sums, dtype=float)  # [2 or 4, questions]
    questions = parts.shape[1]
    totals = parts.sum(1, keepdims=True)
    rest = totals - parts  # The sums without each question.
    if questions < 2 or (rest <= 0).any():
        return float("nan"), float("nan")
    signs = np.array([1.0, -1.0, -1.0, 1.0])[: len(parts)]
    changes = signs @ np.log(rest) - signs @ np.log(totals)  # [questions]
    changes[np.abs(changes) < ROUNDING] = 0
    error = np.sqrt((questions - 1) / questions * np.sum(changes**2))
    weights = (parts / totals).mean(0)  # [questions]; they add up to 1.
    freedom = max(1.0, 1 / np.sum(weights**2) - 1)
    reach = stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
    value = np.prod(totals[:, 0] ** signs)
    return float(value * np.exp(-reach)), float(value * np.exp(reach))
