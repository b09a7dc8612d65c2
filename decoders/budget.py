"""Chooses, in each step, how many of the proposed nodes are verified (`nodes=auto`).

A verify forward of more nodes accepts more tokens and takes longer. How much longer depends on the
machine. Where a forward of 64 nodes takes as long as one of 1 (a GPU at batch 1), large trees win;
on a CPU small ones do, and sometimes none. `AutoBudget` weighs the two afresh in each step, and
`Budgeted` cuts a decoder's drafts accordingly.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor

from decoders.conversation import Conversation
from decoders.decoder import Decoder
from decoders.drafter import Wrapper
from decoders.model.model import Model, Rows
from decoders.tree import Draft

# The sizes that `auto` chooses among. They are few, so that few shapes are ever captured.
LADDER = (1, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class StepTimes:
    """Seconds that a verify forward takes on this machine, by context length and nodes."""

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


class AutoBudget:
    """Chooses the number of nodes that gives the most tokens per second.

    The n best nodes of a draft are expected to commit E(n) tokens: the sum of their path
    probabilities, where the root's is 1. Verifying them takes T(n) seconds, as measured. The
    long-run rate of tokens per second is highest when each step maximises E(n) - rate * T(n), where
    `rate` is that same long-run rate. The turn's rate so far is used for it.

    The probabilities may be too high or too low. So the drafted part of E is multiplied by the
    tokens that past drafts kept, over the tokens that they promised. Where drafting does not pay,
    it pauses, for longer each time.

    A step may cost no more than the conversation can afford. It can afford its credit: the greedy
    steps saved so far, plus SLOWER for every token. A single step may overdraw that by RISK times
    its expected win. So bad heads cost almost nothing, even in an answer of ten tokens. Whether to
    draft at all is decided before the draft is made, from what this turn's drafts have won so far.

    Heads take time, too. Where the decoder can draft to different depths, the next draft is one
    level deeper than the path that the last step kept.

    Drafts must come in descending order of log_prob. No clock is read while decoding, so the
    budgets of a conversation follow from its tokens and the measured times alone.
    """

    # Weight, in steps and in tokens, of the initial belief that drafts are as good as they promise.
    PRIOR = 8
    LONGEST_PAUSE = 8  # Steps.
    SLOWER = 0.02  # Greedy steps of credit that each committed token adds.
    RISK = 0.1  # Part of an expected win that a step may cost beyond the credit.
    # A lone drafting step among greedy ones takes so many times its measured time. It was measured
    # in a row of equal steps, which find the processor's cache warm.
    APART = 1.25
    USUAL = 0.5  # Tokens that a draft is assumed to win while the turn has few drafts of its own.
    FEW = 4  # Weight of USUAL, in drafts.

    def __init__(
        self,
        times: StepTimes,
        draft_s: dict[int, float] | None = None,
        most: float = 3.0,
    ) -> None:
        """draft_s: seconds that drafting adds to a step, by depth. None: not measured yet, 0.

        most: sizes whose verify forward takes longer than this many one-node steps are never used.
        """
        limit = most * times.seconds[0][0]
        self.times = times
        self.max_nodes = max(
            size for size, seconds in zip(times.sizes, times.seconds[0], strict=True)
            if seconds <= limit
        )  # fmt: skip
        self.draft_s: dict[int, float] = draft_s or {0: 0.0}
        self.credit = 0.0  # Greedy steps that the conversation can afford to lose.
        self._conversation = Conversation()
        self._last_nodes: dict[torch.device, Tensor] = {}

    def start(self, prompt: list[int]) -> None:
        """A new turn begins. A further turn of the conversation keeps its credit."""
        if not self._conversation.continues(prompt):
            self.credit = 0.0
        self.depth, self.spent = min(self.draft_s), 0.0
        self.tokens, self.seconds = float(self.PRIOR), self.PRIOR * self.times.seconds[0][0]
        self.kept = self.promised = float(self.PRIOR)
        self.drafted = 0  # Steps.
        self.gain, self.pause, self.resting = 0.0, 1, 0

    def drafts(self) -> bool:
        """Whether to draft for the next step. Asked once a step."""
        self.spent = self.draft_s[self.depth]
        greedy_s, least_s = self.times.seconds[0][:2]
        usual = (self.FEW * self.USUAL + self.kept - self.PRIOR) / (self.FEW + self.drafted)
        affordable = self.credit + self.RISK * usual
        if self.resting == 0 and self._cost(least_s, greedy_s) <= affordable:
            return True
        self.resting = max(0, self.resting - 1)
        return False

    def _cost(self, verify_s: float, greedy_s: float) -> float:
        """Upper estimate of what a drafting step costs beyond a greedy one, in greedy steps."""
        return self.APART * ((verify_s + self.spent) / greedy_s - 1)

    def sizes(self, nodes: int) -> Sequence[int]:
        """The numbers that `choose` may return for a draft of `nodes` nodes."""
        return self.times.sizes[: bisect_right(self.times.sizes, nodes)]

    def forecast(self, draft: Draft) -> Tensor | None:
        """E [sizes]: expected tokens by size. None for a lone root."""
        if draft.log_prob is None:
            return None
        device = draft.log_prob.device
        if device not in self._last_nodes:
            self._last_nodes[device] = torch.tensor(self.times.sizes, device=device) - 1
        last_nodes = self._last_nodes[device][: len(self.sizes(len(draft.tree)))]
        return draft.log_prob.exp().cumsum(0).index_select(0, last_nodes)

    def choose(self, forecast: Sequence[float], length: int) -> int:
        """How many of a draft's nodes to verify.

        forecast: E by size; empty for a lone root. length: committed positions.
        """
        seconds = self.times.at(length)
        greedy_s = seconds[0]
        rate, trust = self.tokens / self.seconds, self.kept / self.promised
        self.tokens += 1
        self.credit += self.SLOWER
        if not forecast:
            self.seconds += greedy_s
            return 1
        gains = [0.0]  # The first is the gain of verifying the root alone.
        for tokens, verify_s in zip(forecast[1:], seconds[1:], strict=False):
            win = trust * (tokens - 1)
            # The draft has been made already, so nodes that take no verify time are free.
            is_free = verify_s == greedy_s
            is_affordable = (
                is_free or self._cost(verify_s, greedy_s) <= self.credit + self.RISK * win
            )
            gains.append(win - rate * (verify_s - greedy_s) if is_affordable else -inf)
        best = max(range(len(gains)), key=gains.__getitem__)
        self.gain += 0.25 * (gains[best] - rate * self.spent - self.gain)
        if self.gain < 0:
            self.resting, self.pause = self.pause, min(2 * self.pause, self.LONGEST_PAUSE)
        else:
            self.pause = 1
        self.drafted += 1
        self.seconds += seconds[best] + self.spent
        self.promised += forecast[best] - 1
        self.credit -= self._cost(seconds[best], greedy_s)
        return self.times.sizes[best]

    def learn(self, kept: int) -> None:
        """Take note that the step after the last `choose` has kept `kept` drafted tokens."""
        self.tokens += kept
        self.kept += kept
        self.credit += (1 + self.SLOWER) * kept
        deeper = [depth for depth in self.draft_s if depth > kept]
        self.depth = min(deeper, default=max(self.draft_s))


class Budgeted(Wrapper):
    """A decoder with `nodes=auto`. Its budget shortens each draft, or skips it."""

    inner: Decoder
    drafts = True

    def __init__(self, inner: Decoder, budget: AutoBudget) -> None:
        super().__init__(inner)
        self.budget = budget
        self.is_drafting = True

    def setup(self, model: Model) -> None:
        self.inner.auto_nodes = self.budget.max_nodes
        super().setup(model)

    def start(self, prompt: Tensor, rows: Rows) -> None:
        super().start(prompt, rows)
        self.budget.start(prompt.tolist())
        self._plan()

    def _plan(self) -> None:
        """Decide how the next draft is made."""
        self.become((self.budget.drafts(), self.budget.depth))

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        if not self.is_drafting:
            return Draft.of_root(root)
        draft = self.inner.propose(root, hidden_state)
        return replace(draft, forecast=self.budget.forecast(draft))

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        nodes = self.budget.choose(forecast, length)
        self._plan()
        return draft.truncated(nodes)

    def after_step(self, kept: int) -> None:
        self.budget.learn(kept)

    @property
    def kind(self) -> Hashable:
        return self.is_drafting, self.inner.draft_depth

    def sizes(self, nodes: int) -> Sequence[int]:
        return self.budget.sizes(nodes)

    def kinds(self) -> Sequence[Hashable]:
        return [(is_drafting, self.budget.depth) for is_drafting in (True, False)]

    def become(self, kind: Hashable) -> None:
        self.is_drafting, self.inner.draft_depth = kind

    decode = Decoder.decode  # Through this drafter, as the budget decides.
