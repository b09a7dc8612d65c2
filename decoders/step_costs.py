"""What steps cost: as measured before the first answer, then as observed while decoding.

The caller measures the seconds, and passes them in.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log


@dataclass(frozen=True)
class StepTimes:
    """Seconds that a step without drafting takes on this machine, by context length and nodes."""

    lengths: tuple[int, ...]  # Committed positions, ascending.
    sizes: tuple[int, ...]  # Nodes, ascending from 1.
    seconds: tuple[tuple[float, ...], ...]  # [lengths][sizes]

    def at(self, length: int) -> list[float]:
        """Seconds by size, linear between the measured lengths and flat outside them.

        >>> StepTimes((0, 100), (1, 8), ((1.0, 2.0), (3.0, 6.0))).at(25)
        [1.5, 3.0]
        """
        if len(self.lengths) == 1 or length <= self.lengths[0]:
            return list(self.seconds[0])
        upper = min(bisect_right(self.lengths, length), len(self.lengths) - 1)
        low, high = self.lengths[upper - 1 : upper + 1]
        part = min(1.0, (length - low) / (high - low))
        rows = self.seconds[upper - 1], self.seconds[upper]
        return [a + part * (b - a) for a, b in zip(*rows, strict=True)]


class StepCosts:
    """Costs of steps, compared with a greedy one, which verifies the root and drafts nothing.

    Measured times are multiplied by correction factors, which are 1 at first. `machine` applies to
    every step, `by_size` to steps of one number of nodes, and `drafting` to the time of a draft.

    The surprise of a step is the logarithm of its seconds over the expected ones. A greedy step
    corrects `machine` alone. Any other step corrects `machine` by surprise / MEMORY. It corrects
    `by_size`, if it has more than one node, and `drafting`, if it drafts, by surprise * `_weight`.
    The weight grows with the number of steps since the factor was last corrected.

    An observation loses its weight within some tens of steps, once its factor is observed again.
    The factor of a size that is no longer used stays as it is.
    """

    MEMORY = 16  # Steps after which an observation has a third of its first weight.
    LARGEST_RATIO = 2.0  # Observed / expected seconds are clamped to 1/LARGEST_RATIO and this.

    def __init__(self, sizes: int) -> None:
        """sizes: how many numbers of nodes there are. The first is one node."""
        self.machine = self.drafting = 1.0
        self.by_size = [1.0] * sizes  # The first one stays 1.
        self._steps = 0  # Observed so far.
        # The steps in which each of these was observed last.
        self._last_greedy = self._last_draft = 0
        self._last_of_size = [0] * sizes

    def of_sizes(self, measured: Sequence[float]) -> list[float]:
        """By size, what a verify forward costs beyond a greedy step, in greedy steps.

        measured: seconds by size, of all sizes or the first ones.
        """
        greedy_s = measured[0]
        return [
            max(0.0, factor * seconds / greedy_s - 1)
            for factor, seconds in zip(self.by_size, measured, strict=False)
        ]

    def of_draft(self, draft_s: float, greedy_s: float) -> float:
        """What a draft costs, in greedy steps. draft_s, greedy_s: measured seconds of both."""
        return self.drafting * draft_s / greedy_s

    @property
    def since_greedy(self) -> int:
        """Steps observed since the last greedy one."""
        return self._steps - self._last_greedy

    def observe(
        self, size_index: int, verify_s: float, draft_s: float | None, seconds: float
    ) -> None:
        """Take note of the seconds that a step took.

        size_index: index, among the sizes, of its number of nodes. verify_s: the measured seconds
        of its verify forward. draft_s: those that drafting for the next step adds. None: it did not
        draft.
        """
        self._steps += 1
        expected = self.by_size[size_index] * verify_s + self.drafting * (draft_s or 0.0)
        times_as_long = seconds / (self.machine * expected)
        clamped = max(1 / self.LARGEST_RATIO, min(self.LARGEST_RATIO, times_as_long))
        surprise = log(clamped)
        if size_index == 0 and draft_s is None:
            self.machine *= exp(self._weight(self._last_greedy) * surprise)
            self._last_greedy = self._steps
            return
        self.machine *= exp(surprise / self.MEMORY)
        if size_index > 0:
            weight = self._weight(self._last_of_size[size_index])
            self.by_size[size_index] *= exp(weight * surprise)
            self._last_of_size[size_index] = self._steps
        if draft_s is not None:
            self.drafting *= exp(self._weight(self._last_draft) * surprise)
            self._last_draft = self._steps

    def _weight(self, last: int) -> float:
        """The weight of an observation made now, where the one before it was made in step `last`.

        It grows with the number of steps in between.
        """
        return 1 - (1 - 1 / self.MEMORY) ** (self._steps - last)
