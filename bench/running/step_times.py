"""Measures how long a step takes on this machine, for `--nodes auto`."""

import statistics
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from bench.running.clock import now
from decoders.accept import Exact
from decoders.budget import LADDER, AutoBudget, Budgeted, StepTimes
from decoders.drafter import Drafter
from decoders.loop import decode
from decoders.model.model import Model
from decoders.step import Stop
from decoders.tree import Draft, Tree

BLOCK = 6  # Steps of one kind in a row.
SETTLED = 3  # First steps of a block, not counted: other sizes' data fills the cache.
DRAFT_BLOCK = 12  # As BLOCK, where drafting is timed. It is a small share of a step.
DRAFTED = 8  # Nodes of a draft that are verified while drafting is timed.
DEPTH = 4  # Of the trees that are timed. The time hardly depends on it.
LENGTHS = (64, 512, 1280, 4096)  # Committed positions.


class _TakingTurns(Drafter):
    """Proposes trees of each size in turn. Their tokens are unlikely, so few are kept."""

    max_depth = DEPTH

    def __init__(self, model: Model, sizes: tuple[int, ...]) -> None:
        self.setup(model)
        self.largest = max(sizes)
        trees = [_tree_of_size(size).to(model.device) for size in sizes]
        self.trees = cycle(tree for tree in trees for _ in range(BLOCK))

    @property
    def max_nodes(self) -> int:
        return self.largest

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        tree = next(self.trees)
        other = (root + 1).remainder(self.model.vocab).expand(len(tree) - 1)
        return Draft(tree, torch.cat((root, other)))


def _tree_of_size(nodes: int) -> Tree:
    return Tree.from_parent([max(0, node - max(1, nodes // DEPTH)) for node in range(nodes)])


def step_times(model: Model, sizes: tuple[int, ...] = LADDER, rounds: int = 2) -> StepTimes:
    """Median seconds of a step by committed positions and nodes, drafting left out.

    The sizes take turns, a few steps each. So if the machine gets busy, it affects all sizes alike.
    """
    steps = (1 + rounds) * len(sizes) * BLOCK
    longest = model.context - 2 * steps
    lengths = tuple(length for length in LENGTHS if length <= longest)
    lengths = lengths or (max(1, model.context // 2),)
    seconds = tuple(_seconds_at(model, length, sizes, steps) for length in lengths)
    return StepTimes(lengths, sizes, seconds)


def _seconds_at(model: Model, length: int, sizes: tuple[int, ...], steps: int) -> tuple[float, ...]:
    """Median seconds by size, of `steps` steps from `length` positions on."""
    prompt = torch.arange(length) % model.vocab
    drafter, decoding = _TakingTurns(model, sizes), iter(())
    samples: dict[int, list[float]] = {size: [] for size in sizes}
    for number in range(steps):
        began = now(model.device)
        step = next(decoding, None)
        if step is None:  # At first, and where the context is full.
            stop = Stop(frozenset(), model.context - length)
            decoding = decode(model, drafter, prompt, Exact(), stop)
            step = next(decoding)
        elif number % BLOCK >= SETTLED and number >= len(sizes) * BLOCK:
            # The first round is not counted, as it may still set things up.
            samples[step.nodes].append(now(model.device) - began)
    return tuple(statistics.median(samples[size]) for size in sizes)


class _AlwaysDrafting(Budgeted):
    """Drafts in every step, weighs the draft as a budget does, and verifies DRAFTED nodes."""

    def _plan(self) -> None:
        self.become((True, self.budget.depth))

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        self.budget.choose(forecast, length)
        return draft.truncated(min(DRAFTED, len(draft.tree)))


class _Held(Drafter):
    """Proposes one draft in every step, so that a step without drafting can be timed."""

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
    """Median seconds, by depth, that drafting adds to a step.

    This is not the time of drafting alone. Heads and successors also push the model's weights out
    of a processor's cache, and on a GPU part of drafting overlaps with the forward. So steps with
    and without drafting take turns, and their times are subtracted.
    """
    return {depth: _draft_time(decoder, depth, rounds) for depth in decoder.inner.draft_depths}


def _draft_time(decoder: Budgeted, depth: int, rounds: int) -> float:
    model = decoder.model
    budget = AutoBudget(decoder.budget.times, {depth: 0.0})
    drafting = _AlwaysDrafting(decoder.inner, budget)
    prompt = torch.arange(max(1, min(64, model.context // 2))) % model.vocab
    first_step = next(decode(model, drafting, prompt, Exact(), Stop(frozenset(), 1)))
    held = _Held(drafting, first_step.draft)
    stop = Stop(frozenset(), model.context - len(prompt))
    samples: dict[Drafter, list[float]] = {held: [], drafting: []}
    for _ in range(rounds):
        for drafter, seconds in samples.items():
            steps = decode(model, drafter, prompt, Exact(), stop)
            began = now(model.device)
            for number, _ in enumerate(islice(steps, DRAFT_BLOCK)):
                ended = now(model.device)
                if number >= SETTLED:
                    seconds.append(ended - began)
                began = ended
    if not samples[drafting] or not samples[held]:
        return 0.0  # The context is too short for a single counted step.
    return max(0.0, statistics.median(samples[drafting]) - statistics.median(samples[held]))
