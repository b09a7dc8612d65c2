"""Measures how long a step takes on this machine, for `--nodes auto`."""

import statistics
from bisect import bisect_left
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from bench.common.errors import UserError, warn
from bench.running.clock import host_now, now
from bench.running.config import RunConfig
from bench.store.budget_times import BudgetTimes, read_budget_times
from decoders.accept import Exact
from decoders.budget import LADDER, AutoBudget, Budgeted
from decoders.decoder import Decoder
from decoders.drafter import Drafter
from decoders.loop import decode
from decoders.model.model import Model
from decoders.step import Step, Stop
from decoders.step_costs import StepTimes
from decoders.tree import Draft, Tree

BLOCK = 6  # Steps of one kind in a row.
SETTLED = 3  # First steps of a block, not counted: other sizes' data fills the cache.
DRAFT_BLOCK = 12  # As BLOCK, where drafting is timed. More, as drafting is a small part of a step.
DRAFTED = 8  # Nodes of a draft that are verified while drafting is timed.
DEPTH = 4  # Most levels of the timed trees. The time hardly depends on it.
LENGTHS = (64, 2048)  # Committed positions. Between them, times grow about linearly.
ROUNDS = 2  # Counted blocks of each size, at each length.
# Seconds of measuring after which nothing is measured a second time. On a busy machine steps take
# several times as long, and budgets correct rough times while decoding.
ENOUGH_S = 20.0
# A size is dropped if its first steps take longer than this many one-node steps. It is above the
# limit of budgets, as a few steps tell the time only roughly.
TOO_LONG = 1.5 * AutoBudget.LONGEST_STEP
# Spread from which on a measurement is not trusted. Another job on this machine causes more, and a
# quiet machine less.
NOISY = 0.15
ROUGH = (
    "as on a busy machine; nodes=auto begins with rough times, and corrects them while it decodes"
)
# Drafting takes at least this part of a one-node step. A noisy measurement may say less than that.
LEAST_DRAFT = 0.02


class _OfSize(Drafter):
    """Proposes trees of a size that may be changed. Their tokens are unlikely, so few are kept."""

    max_depth = DEPTH
    captures = True

    def __init__(self, model: Model, sizes: Sequence[int]) -> None:
        """sizes: ascending."""
        self.setup(model)
        self.largest = sizes[-1]
        self.trees = {size: _tree_of_size(size).to(model.device) for size in sizes}
        self.size = sizes[0]

    @property
    def max_nodes(self) -> int:
        return self.largest

    @property
    def kind(self) -> Hashable:
        return self.size

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        tree = self.trees[self.size]
        other = (root + 1).remainder(self.model.vocab).expand(len(tree) - 1)
        return Draft(tree, torch.cat((root, other)))


def _tree_of_size(nodes: int) -> Tree:
    width = -(-nodes // DEPTH)
    return Tree.from_parent([max(0, node - width) for node in range(nodes)])


@dataclass(frozen=True)
class AutoTimes:
    """The measured times that the budgets of nodes=auto start from."""

    steps: StepTimes
    # Seconds that drafting adds to a step, by label and depth. Labels may be missing.
    draft_s: Mapping[str, dict[int, float]] = field(default_factory=dict)
    # For each measurement of `steps`: the median, over lengths and sizes, of the interquartile
    # range of the samples / their median.
    spread: tuple[float, ...] | None = None  # None: not known.


def given_times(config: RunConfig, decoders: Mapping[str, Decoder]) -> AutoTimes | None:
    """The times of --step-times. None: the flag was not given.

    decoders: by label. UserError where the file is wrong, or lacks one of those with nodes=auto.
    """
    if config.step_times is None:
        return None
    recorded = read_budget_times(Path(config.step_times))
    for label, decoder in decoders.items():
        if decoder.auto and label not in recorded.draft_s:
            raise UserError(
                f"--step-times {config.step_times} is of a run without {label!r}; it has "
                f"{', '.join(recorded.draft_s) or 'no decoder with nodes=auto'}"
            )
    return auto_times(recorded)


def auto_times(recorded: BudgetTimes) -> AutoTimes:
    """The times that a run recorded, for budgets."""
    steps = recorded.step_times
    seconds = tuple(map(tuple, steps.seconds))
    return AutoTimes(StepTimes(tuple(steps.lengths), tuple(steps.sizes), seconds), recorded.draft_s)


def measured_times(model: Model) -> AutoTimes:
    """The step times of this machine. A noisy measurement is repeated once, and that is said.

    It is not repeated where it took longer than ENOUGH_S.
    """
    began = host_now()
    steps, first = step_times(model)
    if first <= NOISY:
        return AutoTimes(steps, spread=(first,))
    if host_now() - began > ENOUGH_S:
        warn(f"step times vary by {_percent(first)}, {ROUGH}")
        return AutoTimes(steps, spread=(first,))
    again, second = step_times(model)
    spread = first, second
    if second <= NOISY:
        warn(f"step times varied by {_percent(first)}, so they were measured again")
        return AutoTimes(again, spread=spread)
    warn(f"step times vary by {_percent(first)} and {_percent(second)}, {ROUGH}")
    return AutoTimes(_shorter(steps, again), spread=spread)


def _shorter(one: StepTimes, other: StepTimes) -> StepTimes:
    """The shorter of both times of everything, as other jobs only make steps longer.

    Sizes that only one of them has are left out.
    """
    sizes = min(one.sizes, other.sizes, key=len)
    pairs = zip(one.seconds, other.seconds, strict=True)
    seconds = tuple(tuple(map(min, zip(*pair, strict=False))) for pair in pairs)
    return StepTimes(one.lengths, sizes, seconds)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


class _Stopwatch:
    """Times steps of a model that has committed some positions."""

    def __init__(self, model: Model, length: int, tokens: int, sizes: Sequence[int]) -> None:
        """length: committed positions at first. tokens: after so many it begins again.

        sizes: those that will be asked for, ascending.
        """
        self.model = model
        self.prompt = torch.arange(length) % model.vocab
        self.stop = Stop(frozenset(), tokens)
        self.drafter = _OfSize(model, sizes)
        self.steps: Iterator[Step] = iter(())

    def block(self, size: int) -> list[float]:
        """Seconds of a few steps of one size."""
        self.drafter.size = size
        samples = []
        for number in range(1 + BLOCK):  # The first step verifies a tree of the size before.
            began = now(self.model.device)
            step = next(self.steps, None)
            ended = now(self.model.device)
            if step is None:
                self.steps = decode(self.model, self.drafter, self.prompt, Exact(), self.stop)
                next(self.steps)
            elif number > SETTLED:
                samples.append(ended - began)
        return samples


def step_times(
    model: Model, sizes: Sequence[int] = LADDER, rounds: int = ROUNDS
) -> tuple[StepTimes, float]:
    """Median seconds of a step by committed positions and nodes, drafting left out, and the spread.

    sizes: ascending from 1. The result leaves out those that take so long that no budget uses them.
    They take turns, a few steps each. So if the machine gets busy, it affects all sizes alike.
    After ENOUGH_S, each further length gets one round alone.
    """
    began = host_now()
    steps = rounds * len(sizes) * (1 + BLOCK)
    tokens = min(2 * steps, model.context // 2)  # A step commits 1 token, rarely 2.
    lengths = tuple(length for length in LENGTHS if length + tokens <= model.context)
    lengths = lengths or (max(1, model.context - tokens),)
    sizes = _usable(_Stopwatch(model, lengths[0], tokens, sizes), sizes)
    samples = []
    for length in lengths:
        stopwatch = _Stopwatch(model, length, tokens, sizes)
        blocks = [[stopwatch.block(size) for size in sizes]]
        while len(blocks) < rounds and host_now() - began < ENOUGH_S:
            blocks.append([stopwatch.block(size) for size in sizes])
        samples.append([list(chain(*by_round)) for by_round in zip(*blocks, strict=True)])
    seconds = tuple(tuple(map(statistics.median, by_size)) for by_size in samples)
    spread = statistics.median(map(_spread, (each for by_size in samples for each in by_size)))
    return StepTimes(lengths, tuple(sizes), seconds), spread


def _usable(stopwatch: _Stopwatch, sizes: Sequence[int]) -> Sequence[int]:
    """The first of some sizes, up to where a step takes too long to be worth it.

    Larger sizes take longer, so few of them need to be tried.
    """

    def takes_too_long(size: int) -> bool:
        one_node, seconds = map(statistics.median, map(stopwatch.block, (sizes[0], size)))
        return seconds > TOO_LONG * one_node

    def takes_too_long_twice(size: int) -> bool:  # The first time may be another job's.
        return takes_too_long(size) and takes_too_long(size)

    return sizes[: bisect_left(sizes, True, lo=1, key=takes_too_long_twice)]


def _spread(samples: Sequence[float]) -> float:
    """The range of the middle half of some samples, as a part of their median."""
    if len(samples) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / middle


class _AlwaysDrafting(Budgeted):
    """Drafts in every step, weighs the draft as a budget does, and verifies DRAFTED nodes."""

    def _plan(self) -> None:
        self.become((True, self.budget.depth))

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        self.budget.choose(forecast, length)
        return draft.truncated(min(DRAFTED, len(draft.tree)))


class _Held(Drafter):
    """Proposes the same draft in every step, so that steps without drafting can be timed."""

    def __init__(self, drafter: Drafter, draft: Draft) -> None:
        self.setup(drafter.model)
        self.captures = drafter.captures
        self.largest = drafter.max_nodes
        tree = draft.tree
        copy = Tree(tree.depth.clone(), tree.parent.clone(), tree.ancestors.clone())
        self.draft = Draft(copy, draft.token.clone())

    @property
    def max_nodes(self) -> int:
        return self.largest

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        return self.draft


def draft_times(decoder: Budgeted, rounds: int = 8) -> dict[int, float]:
    """Seconds, by depth, that drafting adds to a step: the difference of two medians.

    rounds: blocks of steps of either kind, at each timed depth. After ENOUGH_S no further one is
    begun.

    This is not the time of drafting alone. Heads and successors also push the model's weights out
    of a processor's cache, and on a GPU part of drafting overlaps with the forward. So steps with
    and without drafting take turns, and their times are subtracted.

    The least and the greatest depth are timed. Between them, each level adds the same.
    """
    depths = decoder.inner.draft_depths
    least, greatest = depths[0], depths[-1]
    least_s = _draft_time(decoder, least, rounds)
    if least == greatest:
        return {least: least_s}
    of_a_level = max(0.0, _draft_time(decoder, greatest, rounds) - least_s) / (greatest - least)
    return {depth: least_s + (depth - least) * of_a_level for depth in depths}


def _draft_time(decoder: Budgeted, depth: int, rounds: int) -> float:
    model = decoder.model
    budget = AutoBudget(decoder.budget.times, {depth: 0.0})
    drafting = _AlwaysDrafting(decoder.inner, budget)
    prompt = torch.arange(max(1, min(64, model.context // 2))) % model.vocab
    first_step = next(decode(model, drafting, prompt, Exact(), Stop(frozenset(), 1)))
    held = _Held(drafting, first_step.draft)
    tokens = DRAFT_BLOCK * (1 + decoder.inner.max_depth)
    stop = Stop(frozenset(), min(tokens, model.context - len(prompt)))
    samples: dict[Drafter, list[float]] = {held: [], drafting: []}
    deadline = host_now() + ENOUGH_S
    for number in range(rounds):
        if number > 0 and host_now() > deadline:
            break
        for drafter, seconds in samples.items():
            steps = decode(model, drafter, prompt, Exact(), stop)
            began = now(model.device)
            for step, _ in enumerate(islice(steps, DRAFT_BLOCK)):
                ended = now(model.device)
                if step >= SETTLED:
                    seconds.append(ended - began)
                began = ended
    least = LEAST_DRAFT * budget.times.seconds[0][0]
    if not samples[drafting] or not samples[held]:
        return least  # The context is too short for a single counted step.
    return max(least, statistics.median(samples[drafting]) - statistics.median(samples[held]))
