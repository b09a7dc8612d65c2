"""Chooses, in each step, how many of the proposed nodes are verified (`nodes=auto`).

A verify forward of more nodes accepts more tokens and takes longer. How much longer depends on the
machine. Where a forward of 64 nodes takes as long as one of 1 (a GPU at batch 1), large trees win;
on a CPU small ones do, and sometimes none. `AutoBudget` weighs the two afresh in each step, and
`Budgeted` cuts a decoder's drafts accordingly.
"""

from bisect import bisect_right
from collections.abc import Hashable, Sequence
from dataclasses import replace
from math import inf

import torch
from torch import Tensor

from decoders.conversation import Conversation
from decoders.decoder import Decoder
from decoders.drafter import Wrapper
from decoders.model.model import Model, Rows
from decoders.step_costs import StepCosts, StepTimes
from decoders.tree import Draft

# The sizes that `auto` chooses among. They are few, so that few shapes are ever captured.
LADDER = (1, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


class AutoBudget:
    """Chooses the number of nodes that gives the most tokens per second.

    The n best nodes of a draft are expected to commit E(n) tokens: the sum of their path
    probabilities, where the root's is 1. Verifying them costs C(n) greedy steps more than the root
    alone (`StepCosts`). The long-run rate of tokens is highest when each step maximises
    E(n) - rate * C(n), where `rate` is that same long-run rate, in tokens per greedy step. The
    turn's rate so far is used for it.

    The probabilities may be too high or too low. So the drafted part of E is multiplied by the
    tokens that past drafts kept, over the tokens that they promised.

    A draft may cost no more than the conversation's credit, in greedy steps: START at first, plus
    what drafts have saved so far, plus SLOWER for every token. So useless heads cost a conversation
    about START greedy steps, and SLOWER more for each token. Whether to draft at all is decided
    before the draft is made.

    Heads take time, too. Where the decoder can draft to different depths, the next draft is one
    level deeper than the path that the last step kept. It is deeper still where that costs no more
    than SLOWER greedy steps.

    Drafts must come in descending order of log_prob. Where the host tells how long each step took
    (`took`), budgets depend on its clock. Otherwise they follow from the conversation's tokens and
    the measured times alone.
    """

    START = 1.0  # Greedy steps of credit that a conversation begins with.
    SLOWER = 0.02  # Greedy steps of credit that each committed token adds.
    # The largest size is the last one whose step takes no longer than this many one-node steps. The
    # text is short.
    LONGEST_STEP = 3.0

    def __init__(self, times: StepTimes, draft_s: dict[int, float] | None = None) -> None:
        """draft_s: seconds that drafting adds to a step, by depth. None: not measured yet, 0."""
        limit = self.LONGEST_STEP * times.seconds[0][0]
        self.times = times
        self.max_nodes = max(
            size for size, seconds in zip(times.sizes, times.seconds[0], strict=True)
            if seconds <= limit
        )  # fmt: skip
        self.draft_s: dict[int, float] = draft_s or {0: 0.0}
        self.costs = StepCosts(len(times.sizes))
        self.credit = self.START  # Greedy steps that the conversation can afford to lose.
        self._greedy_wait = float(StepCosts.MEMORY)  # Steps from one greedy step to the next.
        self._conversation = Conversation()
        self._last_nodes: dict[torch.device, Tensor] = {}

    def start(self, prompt: list[int]) -> None:
        """A new turn begins. A further turn of the conversation keeps its credit."""
        if not self._conversation.continues(prompt):
            self.credit = self.START
        # All counts begin with `prior`. Both ratios of them are then 1, and change slowly at first.
        prior = float(StepCosts.MEMORY)
        self.tokens = self.spent = prior  # Tokens, and the greedy steps that they took.
        self.kept = self.promised = prior  # Drafted tokens: those kept, and those expected.
        # Of the current step:
        self._size_index = 0  # Index, among the sizes, of its number of nodes.
        self._measured = self.times.at(len(prompt))  # Seconds by size.
        self.depth = self._depth_after(0)
        # Seconds that drafting for the next step takes. None: it does not draft.
        self._draft_s: float | None = None
        self._is_first = True

    def decide_to_draft(self) -> bool:
        """Whether to draft for the next step. Asked before the first step, and once in each."""
        draft_s = self.draft_s[self.depth]
        # A greedy step shows what other steps cost beside it, and loses what drafting would have
        # saved. Where much has been saved, a wrong estimate may stand for longer.
        if self.costs.since_greedy >= self._greedy_wait or not self._can_afford(draft_s):
            return False
        self._draft_s = draft_s
        return True

    def _can_afford(self, draft_s: float) -> bool:
        """Whether the credit pays for a draft, and for verifying the fewest nodes of it."""
        if self.max_nodes == 1:
            return False
        _, fewest = self.costs.of_sizes(self._measured[:2])
        return fewest + self.costs.of_draft(draft_s, self._measured[0]) <= self.credit

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
        return draft.log_prob.float().exp().cumsum(0).index_select(0, last_nodes)

    def choose(self, forecast: Sequence[float], length: int) -> int:
        """How many of a draft's nodes to verify.

        forecast: E by size; empty for a lone root. length: committed positions.
        """
        drafted_s, self._draft_s = self._draft_s or 0.0, None
        measured = self._measured = self.times.at(length)
        rate, trust = self.tokens / self.spent, self.kept / self.promised
        self.tokens += 1
        self.spent += 1
        self.credit += self.SLOWER
        self._size_index = 0
        if forecast:
            drafting = self.costs.of_draft(drafted_s, measured[0])
            left = self.credit - drafting
            costs = self.costs.of_sizes(measured)
            # The draft has been made already, so nodes that cost nothing can always be afforded.
            gains = [
                trust * (tokens - 1) - rate * cost if cost <= max(0.0, left) else -inf
                for tokens, cost in zip(forecast, costs, strict=False)
            ]
            best = self._size_index = max(range(len(gains)), key=gains.__getitem__)
            self.promised += forecast[best] - 1
            self.spent += drafting + costs[best]
            self.credit = left - costs[best]
        return self.times.sizes[self._size_index]

    def learn(self, kept: int) -> None:
        """Take note that the step after the last `choose` has kept `kept` drafted tokens."""
        self.tokens += kept
        self.kept += kept
        self.credit += (1 + self.SLOWER) * kept
        self.depth = self._depth_after(kept)

    def _depth_after(self, kept: int) -> int:
        """How deep to draft after a step that kept `kept` drafted tokens."""
        deeper = min((depth for depth in self.draft_s if depth > kept), default=max(self.draft_s))
        longest_s = self.draft_s[deeper] + self.SLOWER * self._measured[0]
        return max(depth for depth, seconds in self.draft_s.items() if seconds <= longest_s)

    def took(self, seconds: float) -> None:
        """Take note of how long the step after the last `choose` took."""
        if not self._is_first:  # A turn's first step makes its own draft as well.
            verify_s = self._measured[self._size_index]
            self.costs.observe(self._size_index, verify_s, self._draft_s, seconds)
            if self.costs.since_greedy == 0:
                self._greedy_wait = max(float(StepCosts.MEMORY), self.credit)
        self._is_first = False


class Budgeted(Wrapper):
    """A decoder with `nodes=auto`. Its budget shortens each draft, or skips it."""

    inner: Decoder
    drafts = True

    def __init__(self, inner: Decoder, budget: AutoBudget) -> None:
        super().__init__(inner)
        self.budget = budget
        self.is_drafting = True
        self.verified_depth = 0  # Levels that the verified draft could have. 0: none was made.

    def setup(self, model: Model) -> None:
        self.inner.auto_nodes = self.budget.max_nodes
        super().setup(model)

    def start(self, prompt: Tensor, rows: Rows) -> None:
        super().start(prompt, rows)
        self.budget.start(prompt.tolist())
        self._plan()

    def _plan(self) -> None:
        """Decide how the next draft is made."""
        self.become((self.budget.decide_to_draft(), self.budget.depth))

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        if not self.is_drafting:
            return Draft.of_root(root)
        draft = self.inner.propose(root, hidden_state)
        return replace(draft, forecast=self.budget.forecast(draft))

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        nodes = self.budget.choose(forecast, length)
        self._next_step()
        return draft.truncated(nodes)

    def _next_step(self) -> None:
        """Decide how the next draft is made. The current one is about to be verified."""
        self.verified_depth = self.inner.draft_depth if self.is_drafting else 0
        self._plan()

    def after_step(self, kept: int) -> None:
        super().after_step(kept)
        self.budget.learn(kept)

    def took(self, seconds: float) -> None:
        super().took(seconds)
        self.budget.took(seconds)

    @property
    def kind(self) -> Hashable:
        return self.is_drafting, self.inner.draft_depth

    def sizes(self, nodes: int) -> Sequence[int]:
        return self.budget.sizes(nodes)

    def kinds(self) -> Sequence[Hashable]:
        # Asked for with static shapes alone, where drafts have one depth.
        return [(is_drafting, self.budget.depth) for is_drafting in (True, False)]

    def become(self, kind: Hashable) -> None:
        self.is_drafting, self.inner.draft_depth = kind

    decode = Decoder.decode  # The loop then calls this wrapper, and not `inner`.
