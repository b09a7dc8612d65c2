"""How long a step takes on this machine: what `--nodes auto` weighs against the tokens that it brings."""

import statistics
import time

import torch

from decoders.base import Decoder
from decoders.budget import LADDER, StepTimes
from decoders.model import Model
from decoders.tree import Draft, Tree

DEPTH = 4  # of the trees that are timed; the time hardly depends on it
LENGTHS = (64, 512, 2048)  # committed positions


@torch.inference_mode()
def step_times(model: Model, sizes: tuple[int, ...] = LADDER, rounds: int = 9) -> StepTimes:
    """Median seconds of a verify forward by committed positions and nodes.

    The sizes take turns, so that a machine that gets busy meanwhile is busy for all of them.
    """
    longest = model.context - max(sizes) - DEPTH
    lengths = tuple(length for length in LENGTHS if length < longest) or (max(1, longest // 2),)
    drafts = []
    for size in sizes:
        tree = Tree.from_parent([max(0, node - max(1, size // DEPTH)) for node in range(size)]).to(model.device)
        drafts.append(Draft(tree, torch.zeros(size, dtype=torch.long, device=model.device)))
    model.reserve(max(lengths) + max(sizes) + DEPTH)
    seconds = []
    for length in lengths:
        model.advance(length - model.length)  # what the cache holds does not matter to the time
        samples = [_timed(model, lambda draft=draft: model.verify(draft)) for _ in range(1 + rounds) for draft in drafts]
        seconds.append(tuple(statistics.median(samples[at + len(sizes) :: len(sizes)]) for at in range(len(sizes))))
    return StepTimes(lengths, sizes, tuple(seconds))


@torch.inference_mode()
def draft_time(decoder: Decoder, rounds: int = 15) -> float:
    """Median seconds that a decoder takes to propose a tree."""
    model = decoder.model
    model.reserve(1)
    rows = model.prefill(torch.zeros(1, dtype=torch.long), room=1)
    decoder.start(torch.zeros(1, dtype=torch.long, device=model.device), rows)
    root = torch.zeros(1, dtype=torch.long, device=model.device)
    return statistics.median(_timed(model, lambda: decoder.propose(root, rows.hidden)) for _ in range(rounds))


def _timed(model: Model, work) -> float:
    synchronise(model)
    began = time.perf_counter()
    work()
    synchronise(model)
    return time.perf_counter() - began


def synchronise(model: Model) -> None:
    """Wait until the model's device has done what it was given."""
    if model.device.type != "cpu":
        torch.accelerator.synchronize(model.device)
