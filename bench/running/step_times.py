"""How long a step takes on this machine: what `--nodes auto` weighs against the tokens that it brings."""

import statistics
import time
from collections.abc import Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from decoders.accept import Exact
from decoders.budget import LADDER, AutoBudget, StepTimes
from decoders.decoder import Decoder
from decoders.loop import Stop
from decoders.model.model import Model
from decoders.tree import Draft, Tree

BLOCK = 6  # steps of one kind that follow each other
SETTLED = (
    3  # of them that are not counted: they find the processor's cache full of what others read
)
DRAFT_BLOCK = 12  # the same where drafting is timed, whose share of a step is small
DRAFTED = 8  # nodes of a draft that are verified while drafting is timed
DEPTH = 4  # of the trees that are timed; the time hardly depends on it
LENGTHS = (64, 512, 1280, 4096)  # committed positions


class _TakingTurns(Decoder):
    """Proposes trees of one size after the other, of tokens that hardly ever follow."""

    max_depth = DEPTH

    def __init__(self, model: Model, sizes: tuple[int, ...]) -> None:
        self.setup(model)
        self.nodes = max(sizes)
        parents = ([max(0, node - max(1, size // DEPTH)) for node in range(size)] for size in sizes)
        trees = [Tree.from_parent(parent).to(model.device) for parent in parents]
        self.trees = cycle(tree for tree in trees for _ in range(BLOCK))

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        tree = next(self.trees)
        other = (root + 1).remainder(self.model.vocab).expand(len(tree) - 1)
        return Draft(tree, torch.cat((root, other)))


def step_times(model: Model, sizes: tuple[int, ...] = LADDER, rounds: int = 2) -> StepTimes:
    """Median seconds of a step, drafting left out, by committed positions and nodes.

    The sizes take turns, so that a machine that gets busy meanwhile is busy for all of them; a few steps each.
    """
    steps = (1 + rounds) * len(sizes) * BLOCK
    longest = model.context - 2 * steps
    lengths = tuple(length for length in LENGTHS if length <= longest) or (
        max(1, model.context // 2),
    )
    seconds = []
    for length in lengths:
        prompt = torch.arange(length) % model.vocab
        decoder, decoding = _TakingTurns(model, sizes), iter(())
        samples: dict[int, list[float]] = {size: [] for size in sizes}
        for at in range(steps):
            began = _now(model)
            step = next(decoding, None)
            if step is None:  # at first, and where the context is full
                decoding = decoder.decode(
                    prompt, Exact(), Stop(frozenset(), model.context - length)
                )
                step = next(decoding)
            elif (
                at % BLOCK >= SETTLED and at >= len(sizes) * BLOCK
            ):  # the first round may still set things up
                samples[step.nodes].append(_now(model) - began)
        seconds.append(tuple(statistics.median(samples[size]) for size in sizes))
    return StepTimes(lengths, sizes, tuple(seconds))


class _Unmoved(AutoBudget):
    """Weighs like another, and then drafts to one depth and verifies DRAFTED nodes whatever came out."""

    def __init__(self, other: AutoBudget) -> None:
        super().__init__(other.times)
        self.max_nodes = other.max_nodes
        self.draft_s = {other.depth: 0.0}

    def drafts(self) -> bool:
        return True

    def choose(self, forecast: Sequence[float], nodes: int, length: int) -> int:
        super().choose(forecast, nodes, length)
        return min(DRAFTED, nodes)


class _Held(Decoder):
    """Proposes the same draft every time: a step of another decoder's without what drafting costs."""

    def __init__(self, decoder: Decoder, draft: Draft) -> None:
        self.captures = decoder.captures
        self.nodes = decoder.max_nodes
        tree = draft.tree
        self.draft = Draft(
            Tree(tree.depth.clone(), tree.parent.clone(), tree.lines.clone()), draft.token.clone()
        )
        self.setup(decoder.model)

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        return self.draft


def draft_times(decoder: Decoder, rounds: int = 8) -> dict[int, float]:
    """Median seconds, by depth, that drafting adds to a step of a decoder with an AutoBudget.

    Not how long the drafting takes: heads and successors also push the model's weights out of a processor's cache, and on a GPU
    part of it hides behind the forward. So steps with and without it take turns, and the difference is what counts.
    """
    seconds = {}
    for depth in decoder.draft_depths:
        decoder.budget.depth = depth
        seconds[depth] = _draft_time(decoder, rounds)
    return seconds


def _draft_time(decoder: Decoder, rounds: int) -> float:
    budget, model = decoder.budget, decoder.model
    decoder.budget = _Unmoved(budget)
    prompt = torch.arange(max(1, min(64, model.context // 2))) % model.vocab
    stop = Stop(frozenset(), model.context - len(prompt))
    samples: dict[bool, list[float]] = {False: [], True: []}
    try:
        held = _Held(
            decoder, next(iter(decoder.decode(prompt, Exact(), Stop(frozenset(), 1)))).draft
        )
        for _ in range(rounds):
            for drafting, each in ((False, held), (True, decoder)):
                decoding = each.decode(prompt, Exact(), stop)
                began = _now(model)
                for at, _ in enumerate(islice(decoding, DRAFT_BLOCK)):
                    ended = _now(model)
                    if at >= SETTLED:
                        samples[drafting].append(ended - began)
                    began = ended
    finally:
        decoder.budget = budget
    if not samples[True] or not samples[False]:
        return 0.0  # a context of a few tokens, in which there is nothing to decide
    return max(0.0, statistics.median(samples[True]) - statistics.median(samples[False]))


def _now(model: Model) -> float:
    synchronise(model.device)
    return time.perf_counter()


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
