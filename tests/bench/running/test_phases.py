"""Where a step's time goes, and what it asks of the device."""

import pytest

from bench.running.phases import counted_steps, timed_steps
from bench.store.step_profile import PHASES
from decoders import draft_vocabulary
from tests.helpers.models import PROMPT
from tests.helpers.steps import bound, steps_of, tokens_of


@pytest.mark.parametrize(
    ("spec", "most"),
    [
        ("greedy", 20),
        ("static", 30),
        ("dynamic:nodes={}", 40),
        ("dynamic:nodes={}:normalise=vocab", 40),
        # 24 for each level, and 40 to learn from the step.
        ("conditional:nodes={}", 230),
        ("conditional:nodes={}:vocab=frequent", 240),
    ],
)
def test_a_step_is_few_operations_whatever_its_nodes_and_waits_once(tiny_model, spec, most):
    """The published code has about 400 and 63."""
    files = {draft_vocabulary.FILE: list(range(50))}
    counted = [
        counted_steps(bound(tiny_model, spec.format(nodes), files=files), PROMPT, 3)
        for nodes in (16, 64, 256)  # A small tree has fewer levels.
    ]
    counts = [step for steps in counted for step in steps]
    assert {step.waits for step in counts} == {1}
    assert len({step.outside for step in counts}) == 1
    assert counts[0].outside <= most


def test_counting_sees_operations_and_waits(tiny_model):
    """A decoder that looks at its nodes one by one is found out."""
    decoder = bound(tiny_model, "dynamic:nodes=16")
    honest, propose = counted_steps(decoder, PROMPT, 1)[0], decoder.propose

    def slow(root, hidden_state):
        draft = propose(root, hidden_state)
        assert all(token.item() >= 0 for token in draft.token * 1)
        return draft

    decoder.propose = slow
    counted = counted_steps(decoder, PROMPT, 1)[0]
    assert counted.waits == honest.waits + 16
    assert counted.phases["propose"] > honest.phases["propose"]


@pytest.mark.parametrize("static_shapes", [False, True])
def test_every_second_of_a_step_belongs_to_a_phase(tiny_model, static_shapes):
    expected = tokens_of(steps_of(tiny_model, "greedy"))
    tiny_model.static_shapes = static_shapes
    decoder = bound(tiny_model, "dynamic:nodes=16")
    owners = (tiny_model, tiny_model.lm, decoder)
    attributes = [set(vars(owner)) for owner in owners]
    changes = tiny_model.changes.listed()
    steps = timed_steps(decoder, PROMPT, 4)
    assert len(steps) == 4
    for step in steps:
        assert set(step.phases) == set(PHASES) and min(step.phases.values()) > 0
        assert 0 < step.forward < step.phases["verify"]
    # Nothing is left behind.
    assert [set(vars(owner)) for owner in owners] == attributes
    assert tiny_model.changes.listed() == changes
    assert tokens_of(steps_of(tiny_model, "greedy")) == expected
