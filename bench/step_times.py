"""How long a step takes on this machine: what `--nodes auto` weighs against the tokens that it brings."""

import statistics
import time
from itertools import cycle

import torch
from torch import Tensor

from decoders.accept import Exact
from decoders.base import Decoder
from decoders.budget import LADDER, StepTimes
from decoders.loop import Stop
from decoders.model import Model
from decoders.tree import Draft, Tree

BLOCK = 3  # steps of one size that follow each other
DEPTH = 4  # of the trees that are timed; the time hardly depends on it
LENGTHS = (64, 512, 1280, 4096)  # committed positions


class _TakingTurns(Decoder):
    """Proposes trees of one size after the other, all tokens the same."""

    max_depth = DEPTH

    def __init__(self, model: Model, sizes: tuple[int, ...]) -> None:
        self.setup(model)
        self.nodes = max(sizes)
        parents = ([max(0, node - max(1, size // DEPTH)) for node in range(size)] for size in sizes)
        trees = [Tree.from_parent(parent).to(model.device) for parent in parents]
        self.trees = cycle(tree for tree in trees for _ in range(BLOCK))

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        tree = next(self.trees)
        return Draft(tree, root.expand(len(tree)))


def step_times(model: Model, sizes: tuple[int, ...] = LADDER, rounds: int = 3) -> StepTimes:
    """Median seconds of a step, drafting left out, by committed positions and nodes.

    The sizes take turns, so that a machine that gets busy meanwhile is busy for all of them; a few steps each, the first of
    which is not counted: it finds the processor's cache full of what another size reads.
    """
    steps = (1 + rounds) * len(sizes) * BLOCK
    longest = model.context - steps * (1 + DEPTH)
    lengths = tuple(length for length in LENGTHS if length <= longest) or (max(1, model.context // 2),)
    seconds = []
    for length in lengths:
        prompt = torch.arange(length) % model.vocab
        decoding = _TakingTurns(model, sizes).decode(prompt, Exact(), Stop(frozenset(), model.context - length))
        samples: dict[int, list[float]] = {size: [] for size in sizes}
        began = _now(model)
        for at, step in zip(range(steps), decoding, strict=False):
            ended = _now(model)
            if at % BLOCK > 0 and at >= len(sizes) * BLOCK:  # the first round may still set things up
                samples[step.nodes].append(ended - began)
            began = ended
        seconds.append(tuple(statistics.median(samples[size]) for size in sizes))
    return StepTimes(lengths, sizes, tuple(seconds))


@torch.inference_mode()
def draft_times(decoder: Decoder, rounds: int = 15) -> dict[int, float]:
    """Median seconds, by depth, that a decoder with an AutoBudget takes to propose a tree and to learn from it, verified."""
    seconds = {}
    for depth in decoder.draft_depths:
        decoder.budget.depth = depth
        seconds[depth] = _draft_time(decoder, rounds)
    return seconds


def _draft_time(decoder: Decoder, rounds: int) -> float:
    model = decoder.model
    rows = model.prefill(torch.zeros(1, dtype=torch.long), room=decoder.max_nodes, all_rows=decoder.reads_prompt)
    root = torch.zeros(1, dtype=torch.long, device=model.device)
    decoder.start(root, rows)
    hidden = rows.hidden[-1:].clone()
    samples = []
    for _ in range(rounds):
        began = _now(model)
        draft = decoder.propose(root, hidden)
        proposed = _now(model)
        verified = model.verify(draft)
        back = _now(model)
        decoder.observe(draft, verified, root)
        samples.append(proposed - began + _now(model) - back)
    return statistics.median(samples)


def _now(model: Model) -> float:
    synchronise(model)
    return time.perf_counter()


def synchronise(model: Model) -> None:
    """Wait until the model's device has done what it was given."""
    if model.device.type != "cpu":
        torch.accelerator.synchronize(model.device)
