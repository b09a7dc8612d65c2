"""Machines and drafts that are made up, to decode with a budget by a simulated clock."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, log2
from random import Random

from decoders.budget import LADDER, AutoBudget
from decoders.step_costs import StepTimes

GREEDY_S = 0.01  # Of a greedy step on the quiet machine.
Load = Mapping[int, float]  # Greedy steps of the quiet machine that a step takes now, by nodes.
# A processor on which 8 nodes take 1.5 greedy steps, and 64 take 3.5.
QUIET: Load = dict(
    zip(LADDER, (1, 1.3, 1.4, 1.5, 1.75, 1.95, 2.3, 2.6, 3.1, 3.5, 4.5, 5.6), strict=True)
)
# Beside another job, all steps wait about as long. So many nodes look cheap.
WAITING: Load = {nodes: steps + 3 for nodes, steps in QUIET.items()}
# Everything is slower, in proportion.
SLOW: Load = {nodes: 2.5 * steps for nodes, steps in QUIET.items()}
# Many nodes, which would use all cores, get much slower than one.
STEEP: Load = {nodes: 1.5 + 4 * (steps - 1) for nodes, steps in QUIET.items()}
DRAFTING = 0.2  # What drafting takes, in greedy steps under the same load.


@dataclass(frozen=True)
class Heads:
    """How well drafts are."""

    confidence: float  # What they promise: the logit of a usual next token.
    truth: float = 1.0  # What part of that is true.


GOOD, FAIR, POOR, BOASTFUL = Heads(1.2), Heads(0.2), Heads(-1.0), Heads(1.0, truth=0.3)


def drafted(heads: Heads, random: Random, drift: float) -> tuple[list[float], list[int]]:
    """By size, the tokens that a draft is expected to commit, and the drafted ones that are kept.

    drift: how predictable the text is just now.
    """
    level = 1 / (1 + exp(-heads.confidence - 1.5 * drift))
    luck = [random.random() for _ in range(4)]
    forecast, kept = [], []
    for nodes in LADDER:
        p = min(0.97, level * (1 + 0.1 * (1 - level) * log2(nodes)))
        depth = min(4, 1 + int(log2(nodes))) if nodes > 1 else 0
        forecast.append(1 + sum(p**d for d in range(1, depth + 1)))
        hits = [luck[d] < p * heads.truth for d in range(depth)]
        kept.append(hits.index(False) if False in hits else depth)
    return forecast, kept


class Simulation:
    """A budget on a machine whose load changes with the clock."""

    def __init__(
        self, load_at: Callable[[float], Load], heads: Heads, measured: Load, seed: int = 0
    ) -> None:
        """load_at: the load at a time of the clock. measured: that under which steps were measured.

        The seconds of a step vary by some 5 %, and one in 50 takes three times as long.
        """
        self.load_at, self.heads = load_at, heads
        self.random = Random(seed)
        self.clock = self.drift = 0.0
        seconds = tuple(GREEDY_S * measured[nodes] for nodes in LADDER)
        self.budget = AutoBudget(StepTimes((1,), LADDER, (seconds,)), {4: DRAFTING * seconds[0]})

    def _step_s(self, nodes: int, drafts: int) -> float:
        """Seconds of a step with `nodes` nodes that makes `drafts` drafts."""
        load = self.load_at(self.clock)
        interrupted = 3 if self.random.random() < 0.02 else 1
        noise = interrupted * exp(self.random.gauss(0, 0.05))
        return noise * GREEDY_S * (load[nodes] + drafts * DRAFTING * load[1])

    def answer(self, tokens: int, with_clock: bool = True) -> float:
        """Decode a turn of so many tokens. Returns them / those of greedy in the same time.

        with_clock: whether the budget is told the times of its steps.
        """
        budget, random = self.budget, self.random
        budget.start([random.randrange(1000) for _ in range(8)])
        is_drafted = budget.decide_to_draft()
        first_draft = int(is_drafted)  # The first step makes its own draft, too.
        committed, greedy_tokens = 0, 0.0
        while committed < tokens:
            self.drift = 0.8 * self.drift + random.gauss(0, 0.6)
            forecast, kept = drafted(self.heads, random, self.drift)
            most = len(budget.sizes(budget.max_nodes))
            nodes = budget.choose(forecast[:most] if is_drafted else [], 8 + committed)
            is_drafted = budget.decide_to_draft()
            seconds = self._step_s(nodes, is_drafted + first_draft)
            first_draft = 0
            kept_now = kept[LADDER.index(nodes)]
            budget.learn(kept_now)
            greedy_s = 1.04 * GREEDY_S * self.load_at(self.clock)[1]  # With the mean of the noise.
            greedy_tokens += seconds / greedy_s
            committed += 1 + kept_now
            self.clock += seconds
            if with_clock:
                budget.took(seconds)
        return committed / greedy_tokens
