"""What steps cost, as measured and as observed. Seconds are made up."""

import pytest

from decoders.step_costs import StepCosts, StepTimes

# Measured: a greedy step takes 1 s, the next size 2 s, drafting 0.5 s.
MEASURED = [1.0, 2.0]
DRAFT = 0.5


def observed(costs: StepCosts, *steps: tuple[int, bool, float], times: int = 1) -> None:
    """Let costs observe steps: index of the size, whether it drafts, seconds."""
    for _ in range(times):
        for index, drafts, seconds in steps:
            costs.observe(index, MEASURED[index], DRAFT if drafts else None, seconds)


def steps_of_machine(slowness: float, size: float, draft: float) -> list[tuple[int, bool, float]]:
    """One step of each kind, on a machine that is so many times as slow as measured."""
    greedy_s, sized_s, draft_s = slowness, slowness * size * MEASURED[1], slowness * draft * DRAFT
    return [
        (0, False, greedy_s),
        (0, True, greedy_s + draft_s),
        (1, True, sized_s + draft_s),
        (1, False, sized_s),
    ]


def test_step_times_between_and_beyond_the_measured_lengths():
    times = StepTimes((100, 200), (1, 8), ((1.0, 2.0), (3.0, 6.0)))
    expected = {0: [1, 2], 100: [1, 2], 150: [2, 4], 200: [3, 6], 999: [3, 6]}
    assert {length: times.at(length) for length in expected} == expected


def test_without_observations_costs_are_those_measured():
    costs = StepCosts(2)
    assert costs.of_sizes(MEASURED) == [0.0, 1.0]
    assert costs.of_draft(DRAFT, MEASURED[0]) == 0.5
    assert costs.of_sizes([1.0, 0.9]) == [0.0, 0.0]  # More nodes never take less time.
    assert costs.since_greedy == 0


@pytest.mark.parametrize("slowness", [0.5, 1.0, 4.0])
def test_a_slower_machine_changes_no_cost(slowness):
    costs = StepCosts(2)
    observed(costs, *steps_of_machine(slowness, 1, 1), times=30)
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(1, rel=0.1)
    assert costs.of_draft(DRAFT, MEASURED[0]) == pytest.approx(0.5, rel=0.25)
    assert costs.machine == pytest.approx(slowness, rel=0.05)


@pytest.mark.parametrize("slowness", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(("size", "draft"), [(0.6, 1.0), (3.0, 1.0), (1.0, 3.0), (2.0, 0.3)])
def test_what_was_measured_wrong_is_corrected_within_tens_of_steps(slowness, size, draft):
    """Whether sizes or drafts took too long or not long enough, on a machine of any speed."""
    costs = StepCosts(2)
    observed(costs, *steps_of_machine(slowness, size, draft), times=20)  # 80 steps.
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(2 * size - 1, rel=0.3, abs=0.1)
    assert costs.of_draft(DRAFT, MEASURED[0]) == pytest.approx(draft * DRAFT, rel=0.4, abs=0.3)


def test_what_was_observed_is_forgotten_within_tens_of_steps():
    costs = StepCosts(2)
    observed(costs, *steps_of_machine(3, 3, 1), times=50)
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(5, rel=0.05)
    observed(costs, *steps_of_machine(1, 1, 1), times=20)
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(1, rel=0.25)


def test_one_step_that_another_program_interrupts_changes_little():
    costs = StepCosts(2)
    observed(costs, *steps_of_machine(1, 1, 1), times=10)
    observed(costs, (1, True, 1000.0), (0, False, 1000.0))
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(1, rel=0.25)


def test_a_size_that_was_not_seen_for_long_is_believed_at_once():
    costs = StepCosts(2)
    observed(costs, (0, False, 1.0), times=100)
    observed(costs, (1, False, 3.0))
    assert costs.of_sizes(MEASURED)[1] == pytest.approx(2, rel=0.02)


def test_steps_since_a_greedy_one_are_counted():
    costs = StepCosts(2)
    observed(costs, (1, True, 2.5), times=3)
    assert costs.since_greedy == 3
    observed(costs, (0, True, 1.5))  # It drafts, so it is no greedy step.
    assert costs.since_greedy == 4
    observed(costs, (0, False, 1.0))
    assert costs.since_greedy == 0


@pytest.mark.parametrize("seconds", [0.0, 1e-300, 1e300])
def test_any_clock_will_do(seconds):
    costs = StepCosts(2)
    observed(costs, (0, False, seconds), (1, True, seconds), times=500)
    assert all(0 <= cost < float("inf") for cost in costs.of_sizes(MEASURED))
