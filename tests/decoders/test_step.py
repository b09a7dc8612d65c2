"""What a step costs: operations, waits, static shapes; and how many nodes `auto` verifies."""

import pytest
import torch
from torch.nn import functional as F

from bench.running.phases import PHASES, counted_steps, timed_steps
from bench.running.step_times import draft_times, step_times
from decoders.accept import Exact, Sample
from decoders.budget import LADDER, AutoBudget, StepTimes
from decoders.engine import linears
from decoders.loop import Stop
from decoders.model.model import Model
from decoders.tree import Draft, RankTree, Tree
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import COSTLY, FREE, bound, steps_of, tokens_of


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ("greedy", 20), ("static", 30), ("dynamic:nodes={}", 40), ("dynamic:nodes={}:normalise=vocab", 40),
        ("conditional:nodes={}", 230), ("conditional:nodes={}:vocab=frequent", 240),  # 24 a level, 40 to learn from the step
    ],
)  # fmt: skip
def test_a_step_is_few_operations_whatever_its_nodes_and_waits_once(tiny_model, spec, most):
    """The published code has about 400 and 63."""
    tiny_model.frequent = list(range(50))
    counted = [
        counted_steps(bound(tiny_model, spec.format(nodes)), PROMPT, 3) for nodes in (4, 64, 256)
    ]
    counts = [step for steps in counted for step in steps]
    assert {step.waits for step in counts} == {1}
    assert len({step.outside for step in counts}) == 1
    assert counts[0].outside <= most


def test_counting_sees_operations_and_waits(tiny_model):
    """A decoder that looks at its nodes one by one is found out."""
    decoder = bound(tiny_model, "dynamic:nodes=16")
    honest, propose = counted_steps(decoder, PROMPT, 1)[0], decoder.propose

    def slow(root, hidden):
        draft = propose(root, hidden)
        assert all(token.item() >= 0 for token in draft.token * 1)
        return draft

    decoder.propose = slow
    counted = counted_steps(decoder, PROMPT, 1)[0]
    assert counted.waits == honest.waits + 16
    assert counted.phases["propose"] > honest.phases["propose"]


def test_every_second_of_a_step_belongs_to_a_phase(tiny_model):
    steps = timed_steps(bound(tiny_model, "dynamic:nodes=16"), PROMPT, 4)
    assert len(steps) == 4
    for step in steps:
        assert set(step.phases) == set(PHASES) and min(step.phases.values()) > 0
        assert 0 < step.forward < step.phases["verify"]
    assert "propose" not in vars(tiny_model) and "verify" not in vars(
        tiny_model
    )  # nothing is left behind


@pytest.mark.parametrize(
    "family", ["llama", "llama-eager", "mistral-window", "gemma3-window", "gpt2"]
)
def test_static_shapes_give_the_same_tokens(family):
    """Across the border of a bucket, where a window slides, and near the end of the context."""
    lm = randomise(FAMILIES[family]())
    model = Model(lm, tiny_heads())
    for spec in ("greedy", "static", "dynamic:nodes=16", "conditional:nodes=16"):
        for rule in (Exact(), Sample(0.8, seed=3)):
            model.static_shapes = False
            expected = tokens_of(steps_of(model, spec, 140, rule))
            model.static_shapes = True
            assert tokens_of(steps_of(model, spec, 140, rule)) == expected, (spec, rule)


def test_a_longer_text_takes_the_next_bucket():
    model = Model(tiny_llama(max_position_embeddings=600), tiny_heads())
    expected = tokens_of(steps_of(model, "dynamic:nodes=16", 500))
    model.static_shapes = True
    widths, forward = set(), model.run_static
    model.run_static = lambda draft: widths.add(model.shape_of(draft)[-1]) or forward(draft)
    assert tokens_of(steps_of(model, "dynamic:nodes=16", 500)) == expected
    assert widths == {256, 384, 512, 768}


def test_a_static_step_reads_the_same_addresses_every_time(tiny_model):
    """What a captured graph needs."""
    tiny_model.static_shapes = True
    steps_of(tiny_model, "dynamic:nodes=16")
    before = {shape: table.data_ptr() for shape, (table, _) in tiny_model._placed.items()}
    steps_of(tiny_model, "dynamic:nodes=16")
    assert before == {shape: table.data_ptr() for shape, (table, _) in tiny_model._placed.items()}


def test_where_nodes_are_free_all_are_verified_and_where_they_cost_a_step_none(tiny_model):
    free = steps_of(tiny_model, "dynamic:nodes=auto", 100)
    costly = steps_of(tiny_model, "dynamic:nodes=auto", 100, seconds=COSTLY)
    assert max(step.nodes for step in free) == LADDER[-1]
    assert {step.nodes for step in costly} == {1}
    assert tokens_of(free) == tokens_of(costly) == tokens_of(steps_of(tiny_model, "greedy", 100))


@pytest.mark.parametrize("growth", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("draft_s", [0.0, 0.2])
@pytest.mark.parametrize("confidence", [0, 1, 30])
def test_no_turn_gets_slower_than_greedy_by_more_than_it_may_risk(growth, draft_s, confidence):
    """Heads that are hardly ever right, whatever they promise."""
    model = Model(tiny_llama(), tiny_heads(seed=5))
    with torch.no_grad():
        model.heads.out_weight *= confidence
    seconds = tuple(1 + growth * (size - 1) for size in LADDER)
    decoder = bound(model, "dynamic:nodes=auto", seconds)
    decoder.budget.draft_s = {2: draft_s, 3: 1.5 * draft_s, 4: 2 * draft_s}
    tokens = taken = 0.0
    drafted = 0
    for step in decoder.decode(PROMPT, Exact(), Stop(frozenset(), 140)):
        tokens += len(step.tokens)
        taken += seconds[LADDER.index(step.nodes)] + decoder.budget.draft_s.get(
            step.draft.tree.max_depth, 0.0
        )
        drafted += step.nodes > 1
        assert taken <= AutoBudget.RISK * 4 + (1 + AutoBudget.SLOWER) * tokens + 1e-6 or step.finish
    assert drafted > 0 or confidence == 0


def test_a_conversation_can_afford_what_its_earlier_turns_have_won():
    budget = AutoBudget(StepTimes((0,), (1, 4), ((1.0, 1.5),)))
    won = []
    for prompt in (range(10), range(30), range(30), range(31), range(1, 40)):
        budget.start(torch.tensor(prompt))
        won.append(budget.ahead)
        budget.learn(2)
    # A second turn; the same prompt again; a turn behind that; another question.
    each = 2 * (1 + AutoBudget.SLOWER)
    assert won == [0, each, 0, each, 0]


def test_the_dearer_a_draft_the_later_comes_the_first(tiny_model):
    """It is paid for in advance, by what every token grants."""
    first = []
    for draft_s in (0.1, 0.3, 0.9):
        decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
        decoder.budget.draft_s = {2: draft_s, 3: draft_s, 4: draft_s}
        nodes = [step.nodes for step in decoder.decode(PROMPT, Exact(), Stop(frozenset(), 140))]
        first.append(next(at for at, each in enumerate(nodes) if each > 1))
        assert (
            first[-1] * AutoBudget.SLOWER
            >= AutoBudget.APART * draft_s - AutoBudget.RISK * AutoBudget.USUAL - 1e-9
        )
    assert first[0] < first[1] < first[2] < 100


def test_budgets_follow_from_tokens_and_measured_times_alone(tiny_model):
    runs = [
        [step.nodes for step in steps_of(tiny_model, "dynamic:nodes=auto", 80, seconds=FREE)]
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_auto_gives_greedys_tokens(tiny_model, rule, static_shapes):
    tiny_model.static_shapes = static_shapes
    tiny_model.static_tree = RankTree(
        [(0,), (0, 0), (1,), (2,), (0, 1)], [0.5, 0.3, 0.2, 0.1, 0.05]
    )
    expected = tokens_of(steps_of(tiny_model, "greedy", rule=rule))
    for spec in ("dynamic:nodes=auto", "static:nodes=auto", "conditional:nodes=auto"):
        for growth in (0.0, 0.01, 0.05, 0.3):
            seconds = tuple(1 + growth * (size - 1) for size in LADDER)
            assert tokens_of(steps_of(tiny_model, spec, rule=rule, seconds=seconds)) == expected


def test_auto_needs_the_frequencies_of_a_static_tree(tiny_model):
    for tree in (None, RankTree([(0,), (1,)])):
        tiny_model.static_tree = tree
        with pytest.raises(ValueError, match="search_tree"):
            bound(tiny_model, "static:nodes=auto", FREE)


def test_auto_drafts_a_level_deeper_than_the_last_step_went(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    decoder.budget.draft_s = {2: 0.0, 3: 0.0, 4: 0.0}
    steps = list(decoder.decode(PROMPT, Exact(), Stop(frozenset(), 100)))
    # A draft is proposed before the host knows what the step before it kept, so it follows the one before that.
    for before, step in zip(steps, steps[2:-1], strict=False):
        assert step.draft.tree.max_depth == max(2, min(4, len(before.tokens)))


def test_the_first_heads_alone_guess_as_they_do_among_all(tiny_model):
    hidden = torch.randn(1, 32)
    assert tiny_model.guess(hidden, 2).equal(tiny_model.guess(hidden)[:2])


def test_expected_tokens_are_the_paths_probabilities():
    """Root 1, then 0.5, 0.25 and 0.25: 2 tokens from 4 nodes."""
    budget = AutoBudget(StepTimes((0,), (1, 2, 4, 8), ((1.0, 1.0, 1.0, 1.0),)))
    log_prob = torch.tensor([1.0, 0.5, 0.25, 0.25]).log()
    forecast = budget.forecast(Draft(Tree.from_parent([0, 0, 1, 0]), torch.zeros(4), log_prob))
    torch.testing.assert_close(forecast, torch.tensor([1.0, 1.5, 2.0]))


def test_step_times_between_and_beyond_the_measured_lengths():
    times = StepTimes((100, 200), (1, 8), ((1.0, 2.0), (3.0, 6.0)))
    assert [times.at(length) for length in (0, 100, 150, 200, 999)] == [
        [1, 2],
        [1, 2],
        [2, 4],
        [3, 6],
        [3, 6],
    ]


def test_measured_times_are_of_every_size_and_leave_the_model_usable(tiny_model):
    expected = tokens_of(steps_of(tiny_model, "greedy"))
    times = step_times(tiny_model, (1, 4, 16), rounds=1)
    assert len(times.seconds) == len(times.lengths) and all(
        len(row) == 3 and min(row) > 0 for row in times.seconds
    )
    drafts = draft_times(bound(tiny_model, "dynamic:nodes=auto", FREE), rounds=1)
    assert list(drafts) == [2, 3, 4] and min(drafts.values()) >= 0
    assert tokens_of(steps_of(tiny_model, "greedy")) == expected


@pytest.mark.parametrize("shape", [(1, 1, 40), (1, 3, 40), (5, 40), (40,)])
@pytest.mark.parametrize("bias", [False, True])
def test_other_products_are_the_linear_layer(shape, bias):
    generator = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(shape, generator=generator), torch.randn(24, 40, generator=generator)
    added = torch.randn(24, generator=generator) if bias else None
    for found in (
        linears.columns(rows, weight, added),
        linears.packed(rows, linears.pack(weight), added),
    ):
        assert found.shape == (*shape[:-1], 24) and found.is_contiguous()
        torch.testing.assert_close(found, F.linear(rows, weight, added), rtol=1e-5, atol=1e-5)


def watched(monkeypatch, module, width):
    """FewRowLinears of a small module, and what its products are called with: (name, rows, outputs)."""
    used = []
    for name in ("columns", "packed"):
        product = getattr(linears, name)

        def note(rows, weight, bias=None, name=name, product=product):
            found = product(rows, weight, bias)
            used.append((name, rows.numel() // width, found.shape[-1]))
            return found

        monkeypatch.setattr(linears, name, note)
    monkeypatch.setattr(linears, "SMALLEST", 1)
    few_rows = linears.FewRowLinears(module, lambda: module(torch.zeros(1, width)))
    used.clear()
    return few_rows, used


def test_the_product_follows_from_the_number_of_rows_and_can_be_switched_off(monkeypatch):
    layer = torch.nn.Linear(8, 6)
    few_rows, used = watched(monkeypatch, torch.nn.Sequential(layer), 8)
    for rows in (1, 4, 5, 64):
        layer(torch.zeros(rows, 8))
    with few_rows.switched_off():
        layer(torch.zeros(2, 8))
    layer(torch.zeros(5, 8))
    assert used == [
        ("columns", 1, 6),
        ("columns", 4, 6),
        ("packed", 5, 6),
        ("packed", 64, 6),
        ("packed", 5, 6),
    ]


class Gated(torch.nn.Module):
    """Three layers, two of which read the same."""

    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = (
            torch.nn.Linear(8, 5),
            torch.nn.Linear(8, 7),
            torch.nn.Linear(5, 8),
        )

    def forward(self, rows):
        return self.down(self.gate(rows) * self.up(rows).sum(-1, keepdim=True))


@pytest.mark.parametrize("rows", [1, 3, 9])
def test_layers_that_read_the_same_are_one_product(monkeypatch, rows):
    module = Gated()
    given = torch.randn(rows, 8)
    expected, state = (
        module(given),
        {name: value.clone() for name, value in module.state_dict().items()},
    )
    few_rows, used = watched(monkeypatch, module, 8)
    for _ in range(2):
        torch.testing.assert_close(module(given), expected)
    assert [outputs for _, _, outputs in used] == [12, 8] * 2
    with few_rows.switched_off():
        assert module(given).equal(expected)
    assert all(state[name].equal(value) for name, value in module.state_dict().items())


def test_a_joined_layer_never_answers_for_other_rows(monkeypatch):
    """Its part is good for the very tensor that it was computed from, and once."""
    module = Gated()
    plain_up, plain_gate = module.up.forward, module.gate.forward
    few_rows, _ = watched(monkeypatch, module, 8)
    first, other = torch.randn(2, 8), torch.randn(2, 8)
    module.gate(first)
    with few_rows.switched_off():
        expected = plain_up(other)
    torch.testing.assert_close(module.up(other), expected)
    module.gate(first)
    first *= 2
    with few_rows.switched_off():
        expected = plain_gate(first)
    torch.testing.assert_close(module.gate(first), expected)


def test_no_second_copy_of_a_large_model(monkeypatch):
    monkeypatch.setattr(linears, "MOST_PACKED", 100)
    layers = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    rows = torch.randn(3, 8), torch.randn(9, 8)
    expected = [layers(each) for each in rows]
    _, used = watched(monkeypatch, layers, 8)
    for each, want in zip(rows, expected, strict=True):
        torch.testing.assert_close(layers(each), want)
    assert used == [("columns", 3, 8)] * 2


@pytest.mark.parametrize("static_shapes", [False, True])
def test_4096_tokens_of_context_take_no_second_buffer(static_shapes):
    model = Model(tiny_llama(max_position_embeddings=4096), tiny_heads())
    model.static_shapes = static_shapes
    prompt = torch.arange(4000) % 101
    steps = bound(model, "dynamic:nodes=16").decode(prompt, Exact(), Stop(frozenset(), 96))
    buffers = [buffer.data_ptr() for buffer in model.cache._buffers]
    assert sum(len(step.tokens) for step in steps) == 96
    assert buffers == [buffer.data_ptr() for buffer in model.cache._buffers]
