"""How many of the nodes that a decoder proposes a step verifies.

A verify forward of more nodes accepts more tokens and takes longer; how much longer is the machine's affair. Where a
forward of 64 nodes takes as long as one of 1 (a GPU at batch 1), large trees win; on a CPU small ones do, and sometimes none.
`AutoBudget` weighs the two afresh each step.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from decoders.tree import Draft

AUTO = "auto"
LADDER = (
    1,
    4,
    6,
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
)  # the sizes that `auto` chooses among: few, so that shapes stay static


class Budget:
    """The plain one: every proposed node is verified."""

    depth: int | None = (
        None  # that the next draft is worth, of the decoder's `draft_depths`; None: the deepest
    )
    pauses: bool = False  # whether there are steps that draft nothing for the next

    def start(self, prompt: Tensor) -> None:
        """A new turn begins, with `prompt` [prompt]."""

    def drafts(self) -> bool:
        """Whether to draft for the next step."""
        return True

    def sizes(self, nodes: int) -> Sequence[int]:
        """What `choose` may answer for a draft of so many nodes."""
        return (nodes,)

    def forecast(self, draft: Draft) -> Tensor:
        """What `choose` needs to know of a draft, to be transferred with the step's tokens."""
        return draft.token[:0]

    def choose(self, forecast: Sequence[float], nodes: int, length: int) -> int:
        """How many of a draft's `nodes` to verify, with `length` positions committed."""
        return nodes

    def learn(self, kept: int) -> None:
        """The step that was last chosen for has kept so many drafted tokens."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds that a verify forward takes on this machine, by context length and number of nodes."""

    lengths: tuple[int, ...]  # committed positions, ascending
    sizes: tuple[int, ...]  # nodes, ascending, the first 1
    seconds: tuple[tuple[float, ...], ...]  # [lengths][sizes]

    def at(self, length: int) -> list[float]:
        """Seconds by size, linear between the measured lengths and flat outside them.

        >>> StepTimes((0, 100), (1, 8), ((1.0, 2.0), (3.0, 6.0))).at(25)
        [1.5, 3.0]
        """
        if len(self.lengths) == 1 or length <= self.lengths[0]:
            return list(self.seconds[0])
        after = min(bisect_right(self.lengths, length), len(self.lengths) - 1)
        low, high = self.lengths[after - 1 : after + 1]
        part = min(1.0, (length - low) / (high - low))
        return [
            a + part * (b - a)
            for a, b in zip(self.seconds[after - 1], self.seconds[after], strict=True)
        ]


class AutoBudget(Budget):
    """As many nodes as make the most tokens per second, by the draft's own path probabilities and measured step times.

    The n best nodes of a draft commit E(n) = sum of their path probabilities tokens (the root's is 1) and take T(n) seconds.
    The long-run rate of tokens per second is highest when each step maximises E(n) - rate * T(n), with the rate that
    results; the turn's rate so far stands for it. What the probabilities are worth is learned as well: E's drafted part is
    scaled by what past drafts kept over what they promised. Where drafting as such does not pay it pauses, for longer each
    time.

    No step costs more than the conversation can afford: what it is ahead of greedy decoding by now, where SLOWER of a step is
    granted for every token, and RISK of what the step expects to win. (Whether to draft is decided before the draft is there,
    by what the turn's drafts have won so far.) So bad heads, too, cost next to nothing, and an answer of ten tokens is hardly
    made slower by trying.

    Heads cost time as well. A draft goes one level deeper than the last step's tokens went, where the decoder can do less than
    its deepest.

    Needs drafts in descending order of log_prob. Nothing here is read off a clock while decoding, so a conversation's budgets
    follow from its tokens and the measured times alone.
    """

    pauses = True

    PRIOR = 8  # steps' (and tokens') worth of trust in "no better than greedy" and in the probabilities as they are
    LONGEST_PAUSE = 8  # steps
    SLOWER = 0.02
    RISK = 0.1
    APART = 1.25  # of what was measured among its like, that a draft costs where those around it draft nothing
    USUAL = 0.5  # tokens that a draft is taken to win while the turn has hardly any of its own
    FEW = 4  # drafts' worth of trust in that

    def __init__(self, times: StepTimes, most: float = 3.0) -> None:
        """`most`: sizes that take longer than so many one-node steps are never drafted for."""
        usable = [
            size
            for at, size in enumerate(times.sizes)
            if times.seconds[0][at] <= most * times.seconds[0][0]
        ]
        self.times = times
        self.max_nodes = max(usable)
        self.draft_s: dict[int, float] = {
            0: 0.0
        }  # seconds that drafting adds to a step, by depth; to be measured
        self.ahead = 0.0  # greedy steps that the conversation can afford to lose
        self._asked: list[int] = []
        self._last: dict[torch.device, Tensor] = {}

    def sizes(self, nodes: int) -> Sequence[int]:
        return self.times.sizes[: bisect_right(self.times.sizes, nodes)]

    def start(self, prompt: Tensor) -> None:
        if not self._goes_on(prompt.tolist()):
            self.ahead = 0.0
        self.depth, self.spent = min(self.draft_s), 0.0
        self.tokens, self.seconds = float(self.PRIOR), self.PRIOR * self.times.seconds[0][0]
        self.kept = self.promised = float(self.PRIOR)
        self.drafted = 0  # steps
        self.gain, self.pause, self.resting = 0.0, 1, 0

    def _goes_on(self, prompt: list[int]) -> bool:
        """Whether a prompt is the last turn's and more: a further turn of its conversation."""
        before, self._asked = self._asked, prompt
        return len(prompt) > len(before) > 0 and prompt[: len(before)] == before

    def drafts(self) -> bool:
        self.spent = self.draft_s[self.depth]
        greedy_s, least_s = self.times.seconds[0][:2]
        usual = (self.FEW * self.USUAL + self.kept - self.PRIOR) / (self.FEW + self.drafted)
        if self.resting == 0 and self._cost(least_s, greedy_s) <= self.ahead + self.RISK * usual:
            return True
        self.resting = max(0, self.resting - 1)
        return False

    def _cost(self, verify_s: float, greedy_s: float) -> float:
        """Greedy steps, at most, that a step with a draft takes longer than one of them."""
        return self.APART * ((verify_s + self.spent) / greedy_s - 1)

    def forecast(self, draft: Draft) -> Tensor:
        """E [sizes]: expected tokens by size; empty for a lone root."""
        if draft.log_prob is None:
            return draft.token[:0]
        device = draft.log_prob.device
        if device not in self._last:
            self._last[device] = torch.tensor(self.times.sizes, device=device) - 1
        last = self._last[device][: len(self.sizes(len(draft.tree)))]
        return draft.log_prob.exp().cumsum(0).index_select(0, last)

    def choose(self, forecast: Sequence[float], nodes: int, length: int) -> int:
        seconds = self.times.at(length)
        greedy_s = seconds[0]
        rate, trust = self.tokens / self.seconds, self.kept / self.promised
        self.tokens += 1
        self.ahead += self.SLOWER
        if not forecast:
            self.seconds += greedy_s
            return 1
        worth = [0.0]  # of verifying the root alone
        for tokens, taken in zip(forecast[1:], seconds[1:], strict=False):
            win = trust * (tokens - 1)
            # The draft is there by now: nodes that take no time are free.
            affordable = (
                self._cost(taken, greedy_s) <= self.ahead + self.RISK * win or taken == greedy_s
            )
            worth.append(win - rate * (taken - greedy_s) if affordable else -inf)
        best = max(range(len(worth)), key=worth.__getitem__)
        self.gain += 0.25 * (worth[best] - rate * self.spent - self.gain)
        if self.gain < 0:
            self.resting, self.pause = self.pause, min(2 * self.pause, self.LONGEST_PAUSE)
        else:
            self.pause = 1
        self.drafted += 1
        self.seconds += seconds[best] + self.spent
        self.promised += forecast[best] - 1
        self.ahead -= self._cost(seconds[best], greedy_s)
        return self.times.sizes[best]

    def learn(self, kept: int) -> None:
        self.tokens += kept
        self.kept += kept
        self.ahead += (1 + self.SLOWER) * kept
        self.depth = min(
            (depth for depth in self.draft_s if depth > kept), default=max(self.draft_s)
        )
