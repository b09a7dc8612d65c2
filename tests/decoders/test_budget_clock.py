"""Budgets that follow a clock, on a machine that is busy at times. The clock is simulated."""

import statistics
from collections.abc import Callable

import pytest

from tests.helpers.machines import (
    BOASTFUL,
    FAIR,
    GOOD,
    POOR,
    QUIET,
    SLOW,
    STEEP,
    WAITING,
    Heads,
    Load,
    Simulation,
)

TOKENS = 150  # Of a turn, some 100 steps.
LEAST = 0.78  # Of any turn.
BUSY_S = 20.0  # How long the machine is busy at the start, where it is.
ALL_HEADS = pytest.mark.parametrize("heads", [GOOD, FAIR, POOR, BOASTFUL])
ALL_LOADS = pytest.mark.parametrize("load", [WAITING, SLOW, STEEP])


def ratios(
    load_at: Callable[[float], Load], heads: Heads, measured: Load, until_s: float = 60.0
) -> list[float]:
    """Tokens over greedy's in the same time, turn by turn."""
    found = []
    for seed in range(2):
        simulation = Simulation(load_at, heads, measured, seed)
        while simulation.clock < until_s:
            found.append(simulation.answer(TOKENS))
    return found


@ALL_HEADS
@ALL_LOADS
def test_a_busy_start_is_forgotten(load, heads):
    """Steps are measured while the machine is busy, which it is for 20 s."""
    found = ratios(lambda clock: load if clock < BUSY_S else QUIET, heads, measured=load)
    assert min(found) > LEAST and statistics.median(found) > 0.95


@ALL_HEADS
@ALL_LOADS
@pytest.mark.parametrize("was_busy", [False, True])
def test_a_machine_that_is_busy_all_the_time(load, heads, was_busy):
    """Whether it was so while steps were measured, or not yet."""
    found = ratios(lambda clock: load, heads, measured=load if was_busy else QUIET)
    assert min(found) > LEAST and statistics.median(found) > 0.95


@ALL_HEADS
@ALL_LOADS
@pytest.mark.parametrize("every_s", [3.0, 11.0])
def test_a_machine_that_is_busy_now_and_then(load, heads, every_s):
    found = ratios(
        lambda clock: load if clock % every_s < every_s / 2 else QUIET, heads, measured=QUIET
    )
    assert min(found) > LEAST and statistics.median(found) > 0.95


def turns(heads: Heads, measured: Load, with_clock: bool = True) -> list[list[float]]:
    """Ratios of the turns of some runs on a quiet machine."""
    simulations = [Simulation(lambda clock: QUIET, heads, measured, seed) for seed in range(12)]
    return [[each.answer(TOKENS, with_clock) for _ in range(8)] for each in simulations]


def mean(runs: list[list[float]], first: int = 0) -> float:
    """The mean of all runs from their turn `first` on."""
    return statistics.mean(ratio for run in runs for ratio in run[first:])


@pytest.mark.parametrize("heads", [GOOD, FAIR])
@ALL_LOADS
def test_within_tens_of_steps_it_is_as_if_the_times_had_been_right(load, heads):
    """The machine gets quiet as soon as steps are measured. The first turn may learn from it."""
    assert mean(turns(heads, load), first=1) > 0.9 * mean(turns(heads, QUIET), first=1)


@ALL_HEADS
def test_what_following_costs_on_a_quiet_machine(heads):
    """Estimates of times have noise, and greedy steps are taken to compare with."""
    fixed = turns(heads, QUIET, with_clock=False)
    assert mean(turns(heads, QUIET)) > 0.93 * mean(fixed)


def test_without_a_clock_a_busy_start_makes_all_turns_slow():
    """What these tests would miss if the clock had no effect."""
    very_busy = {nodes: steps + 8 for nodes, steps in QUIET.items()}
    assert mean(turns(BOASTFUL, very_busy, with_clock=False), first=2) < 0.88
    assert mean(turns(BOASTFUL, very_busy), first=2) > 0.95
