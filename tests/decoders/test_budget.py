"""How many nodes `nodes=auto` verifies. Seconds are made up: one one-node step takes 1."""

from itertools import pairwise
from random import Random

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.budget import LADDER, AutoBudget
from decoders.engine.engine import Engine
from decoders.step_costs import StepCosts, StepTimes
from decoders.tree import Draft, Tree
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.steps import COSTLY, FREE, OWN_TREE, bound, budget_of, steps_of, tokens_of, turn


def seconds_with(growth: float) -> tuple[float, ...]:
    """Seconds by size where each node but the first takes `growth`."""
    return tuple(1 + growth * (size - 1) for size in LADDER)


def test_where_nodes_are_free_all_are_verified_and_where_they_cost_a_step_none(tiny_model):
    free = steps_of(tiny_model, "dynamic:nodes=auto", 100)
    costly = steps_of(tiny_model, "dynamic:nodes=auto", 100, seconds=COSTLY)
    assert max(step.nodes for step in free) == LADDER[-1]
    assert {step.nodes for step in costly} == {1}
    assert tokens_of(free) == tokens_of(costly) == tokens_of(steps_of(tiny_model, "greedy", 100))


@pytest.mark.parametrize("growth", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("draft_s", [0.0, 0.2])
@pytest.mark.parametrize("confidence", [0, 1, 30])
def test_no_turn_gets_slower_than_greedy_by_more_than_it_may(growth, draft_s, confidence):
    """With heads that are hardly ever right, whatever they promise."""
    model = Engine(tiny_llama(), tiny_heads(seed=5))
    with torch.no_grad():
        model.heads.out_weight *= confidence
    seconds = seconds_with(growth)
    decoder = bound(model, "dynamic:nodes=auto", seconds)
    decoder.budget.draft_s = {2: draft_s, 3: 1.5 * draft_s, 4: 2 * draft_s}
    tokens = taken = 0.0
    drafted = 0
    for step in decoder.decode(*turn(140, Exact())):
        tokens += len(step.tokens)
        taken += seconds[LADDER.index(step.nodes)]
        taken += decoder.budget.draft_s.get(step.draft.tree.max_depth, 0.0)
        drafted += step.nodes > 1
        most = AutoBudget.START + (1 + AutoBudget.SLOWER) * tokens + 1e-6
        assert taken <= most
    assert drafted > 0 or confidence == 0


def test_a_conversation_can_afford_what_its_earlier_turns_have_won():
    budget = AutoBudget(StepTimes((0,), (1, 4), ((1.0, 1.5),)))
    credit = []
    for prompt in (range(10), range(30), range(30), range(31), range(1, 40)):
        budget.start(list(prompt))
        credit.append(budget.credit)
        budget.learn(2)
    # A second turn; the same prompt again; a turn after that; another question.
    fresh = AutoBudget.START
    richer = fresh + 2 * (1 + AutoBudget.SLOWER)
    assert credit == [fresh, richer, fresh, richer, fresh]


def test_the_dearer_a_draft_the_later_comes_the_first(tiny_model):
    """What the first credit does not pay for waits for the credit that every token adds."""
    first = []
    for draft_s in (0.9, 1.3, 1.9):
        decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
        decoder.budget.draft_s = {2: draft_s, 3: draft_s, 4: draft_s}
        nodes = [step.nodes for step in decoder.decode(*turn(140, Exact()))]
        first.append(next(number for number, each in enumerate(nodes) if each > 1))
        assert AutoBudget.START + first[-1] * AutoBudget.SLOWER >= draft_s - 1e-9
    assert first[0] <= 1 < first[1] < first[2] < 100


def test_budgets_follow_from_tokens_and_measured_times_alone(tiny_model):
    first, again = (
        [step.nodes for step in steps_of(tiny_model, "dynamic:nodes=auto", 80, seconds=FREE)]
        for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_auto_gives_greedys_tokens(tiny_model, rule, static_shapes):
    tiny_model.static_shapes = static_shapes
    expected = tokens_of(steps_of(tiny_model, "greedy", rule=rule))
    for spec in ("dynamic:nodes=auto", "static:nodes=auto", "conditional:nodes=auto"):
        for growth in (0.0, 0.01, 0.05, 0.3):
            seconds = seconds_with(growth)
            steps = steps_of(tiny_model, spec, rule=rule, seconds=seconds, files=OWN_TREE)
            assert tokens_of(steps) == expected, (spec, growth)


def test_auto_drafts_a_level_deeper_than_the_last_step_went(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    decoder.budget.draft_s = {2: 0.0, 3: 0.1, 4: 0.2}
    steps = list(decoder.decode(*turn(100, Exact())))
    # A draft is proposed before the host knows what the step before it kept. So it follows the one
    # before that.
    for before, step in zip(steps, steps[2:-1], strict=False):
        assert step.draft.tree.max_depth == max(2, min(4, len(before.tokens)))


def test_levels_that_cost_almost_nothing_are_drafted_always():
    budget = AutoBudget(StepTimes((1,), (1, 4), ((2.0, 2.2),)))
    almost = 2.0 * AutoBudget.SLOWER  # Seconds, where a greedy step takes 2.
    budget.draft_s = {2: 0.5, 3: 0.4, 4: 0.5 + 0.9 * almost, 5: 0.5 + 1.1 * almost, 6: 1.0}
    budget.start([1, 2, 3])
    depths = [budget.depth]
    for kept in (1, 3, 4, 5, 6):
        budget.learn(kept)
        depths.append(budget.depth)
    assert depths == [4, 4, 5, 5, 6, 6]


def test_with_static_shapes_a_draft_has_one_depth(tiny_model):
    """Each depth would be one more graph to capture."""
    assert bound(tiny_model, "dynamic:nodes=auto", FREE).inner.draft_depths == (2, 3, 4)
    tiny_model.static_shapes = True
    assert bound(tiny_model, "dynamic:nodes=auto", FREE).inner.draft_depths == (4,)


def test_expected_tokens_are_the_paths_probabilities():
    """Root 1, then 0.5, 0.25 and 0.25: 2 tokens from 4 nodes."""
    budget = AutoBudget(StepTimes((0,), (1, 2, 4, 8), ((1.0, 1.0, 1.0, 1.0),)))
    log_prob = torch.tensor([1.0, 0.5, 0.25, 0.25]).log()
    draft = Draft(Tree.from_parent([0, 0, 1, 0]), torch.zeros(4), log_prob)
    torch.testing.assert_close(budget.forecast(draft), torch.tensor([1.0, 1.5, 2.0]))
    assert budget.forecast(Draft.of_root(torch.tensor([3]))) is None


def test_sizes_that_take_too_long_are_never_drafted_for(tiny_model):
    """Sizes that take longer than three one-node steps."""
    assert budget_of(FREE).max_nodes == LADDER[-1]
    assert budget_of(COSTLY).max_nodes == 1
    assert budget_of(seconds_with(0.1)).max_nodes == 16
    decoder = bound(tiny_model, "dynamic:nodes=auto", seconds_with(0.1))
    assert decoder.max_nodes == decoder.inner.max_nodes == 16


def test_drafts_that_never_pay_take_a_fixed_part_of_the_time():
    budget = AutoBudget(StepTimes((1,), (1, 4), ((1.0, 1.2),)), {4: 0.1})
    budget.start([1, 2, 3])
    is_drafted, drafts = budget.decide_to_draft(), 0
    for _ in range(600):
        budget.choose([1.0, 1.9] if is_drafted else [], length=10)
        drafts += is_drafted
        is_drafted = budget.decide_to_draft()
        budget.learn(0)
    granted = AutoBudget.START + 600 * AutoBudget.SLOWER
    # A draft costs 0.1, and 0.2 more where it is verified.
    assert granted / 0.3 - 1 <= drafts <= granted / 0.1


def test_what_drafts_have_saved_pays_for_rarer_greedy_steps():
    """They are taken to compare other steps with, and cost what drafting would save."""
    budget = AutoBudget(StepTimes((1,), (1, 4), ((1.0, 1.5),)), {4: 0.1})
    budget.start([1, 2, 3])
    is_drafted, greedy = budget.decide_to_draft(), []
    for step in range(1000):
        nodes = budget.choose([1.0, 2.9] if is_drafted else [], length=10)
        is_drafted = budget.decide_to_draft()
        budget.learn(1 if nodes == 4 else 0)
        budget.took((1.5 if nodes == 4 else 1.0) + 0.1 * is_drafted)
        if nodes == 1 and not is_drafted:
            greedy.append(step)
    gaps = [after - before for before, after in pairwise(greedy)]
    assert min(gaps) > StepCosts.MEMORY and gaps == sorted(gaps) and gaps[-1] > 8 * gaps[0]
    for _ in range(3):  # A new conversation begins without credit, and drafts at once all the same.
        budget.start([9, 9])
        assert budget.decide_to_draft()


def test_the_first_step_of_a_turn_is_not_observed():
    """It makes its own draft as well."""
    budget = AutoBudget(StepTimes((1,), (1, 4), ((1.0, 1.2),)))
    for _ in range(2):
        budget.start([1, 2, 3])
        for _ in range(2):
            budget.choose([], length=3)
            budget.learn(0)
            budget.took(2.0)
    kept = (1 - 1 / StepCosts.MEMORY) ** 2  # After two observations.
    assert budget.costs.machine == pytest.approx(2 ** (1 - kept))


@pytest.mark.parametrize("spec", ["dynamic:nodes=auto", "conditional:nodes=auto"])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_tokens_never_depend_on_the_clock_and_nodes_may(tiny_model, spec, static_shapes):
    tiny_model.static_shapes = static_shapes
    expected = tokens_of(steps_of(tiny_model, "greedy", 100))
    nodes = []
    for seed in range(4):
        clock, decoder = Random(seed), bound(tiny_model, spec, FREE)
        nodes.append([])
        tokens = []
        for step in decoder.decode(*turn(100, Exact())):
            decoder.took(clock.choice([0.0, 0.5, 1.0, 20.0]))
            nodes[-1].append(step.nodes)
            tokens += step.tokens
        assert tokens == expected
    assert any(each != nodes[0] for each in nodes)


def test_a_budget_passes_on_what_its_decoder_is_told(tiny_model):
    decoder, told = bound(tiny_model, "dynamic:nodes=auto", FREE), []
    decoder.inner.after_step = lambda kept: told.append(("kept", kept))
    decoder.inner.took = lambda seconds: told.append(("took", seconds))
    for step in decoder.decode(*turn(20, Exact())):
        decoder.took(0.5)
        assert told[-2][0] == "kept" and told[-1] == ("took", 0.5)
        assert told[-2][1] == len(step.tokens) - 1


def test_a_budget_passes_on_what_its_decoder_is(tiny_model):
    decoder = bound(tiny_model, "conditional:nodes=auto", FREE)
    inner = decoder.inner
    assert decoder.reads_prompt and decoder.captures and decoder.drafts
    assert (decoder.max_nodes, decoder.max_depth) == (inner.max_nodes, inner.max_depth) == (128, 6)
    assert decoder.slots_beyond == inner.slots_beyond
    assert decoder.model is inner.model is tiny_model
