"""Every kind of step is captured before the first answer. A recorder stands in for CUDA graphs."""

import pytest
import torch

from decoders.accept import Exact, Sample, Threshold
from decoders.acceptance import Typical
from decoders.engine.engine import Engine
from decoders.engine.graphs import Graphs
from decoders.engine.rehearsal import rehearse
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama
from tests.helpers.recorder import recorded
from tests.helpers.steps import FREE, GROWING, OWN_TREE, bound, steps_of, tokens_of, turn

SPECS = (
    "greedy",
    "static",
    "dynamic:nodes=16",
    "dynamic:nodes=auto",
    "conditional:nodes=16",
    "conditional:nodes=auto",
    "recycling:nodes=16",
    "hydra:nodes=16",
    "eagle:nodes=16:depth=3",
    "eagle:nodes=auto:depth=3",
)


def capturing(model: Engine) -> Engine:
    model.static_shapes = model.graphs.captures = True
    return model


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
@pytest.mark.parametrize("spec", SPECS)
def test_after_a_rehearsal_nothing_is_left_to_capture(captured, tiny_model, spec, rule):
    """With pauses and several sizes where there is a choice, as each size costs a little more."""
    plain = Engine(tiny_llama(), tiny_heads())
    expected = tokens_of(steps_of(plain, spec, 140, rule, GROWING, OWN_TREE))
    model = capturing(tiny_model)
    decoder = bound(model, spec, GROWING, OWN_TREE)
    rehearse(model, decoder, rule, len(PROMPT) + 140)
    there = dict(model.graphs._captured)
    assert there
    assert tokens_of(list(decoder.decode(*turn(140, rule)))) == expected
    assert model.graphs._captured == there and model.graphs._met == there.keys()


def test_a_rehearsal_reaches_every_width(captured):
    model = capturing(Engine(tiny_llama(max_position_embeddings=2048), tiny_heads()))
    rehearse(model, bound(model, "dynamic:nodes=16"), Exact(), 700)
    shapes = [shape for kind, *_, shape in model.graphs._captured if kind == "verify"]
    assert sorted(shapes) == [(16, 4, width) for width in (256, 384, 512, 768)]


@pytest.mark.parametrize("rule", [Exact(), Threshold(0.8, Typical())])
@pytest.mark.parametrize("spec", SPECS)
def test_what_a_rehearsal_made_up_is_not_read_later(captured, tiny_model, spec, rule):
    """A static step reads all of a width, and no mask hides NaN."""
    plain = Engine(tiny_llama(), tiny_heads())
    expected = tokens_of(steps_of(plain, spec, 60, rule, GROWING, OWN_TREE))
    model = capturing(tiny_model)
    decoder = bound(model, spec, GROWING, OWN_TREE)
    embedding = model.lm.get_input_embeddings().weight.data[0]  # Token 0 is rehearsed with.
    sound = embedding.clone()
    embedding.fill_(torch.nan)
    rehearse(model, decoder, rule, len(PROMPT) + 60)
    embedding.copy_(sound)
    there = dict(model.graphs._captured)
    assert there
    assert tokens_of(list(decoder.decode(*turn(60, rule)))) == expected
    assert model.graphs._captured == there and model.graphs._met == there.keys()


def test_a_rehearsal_teaches_a_budget_nothing(captured, tiny_model):
    expected = [step.nodes for step in steps_of(tiny_model, "dynamic:nodes=auto", 100)]
    model = capturing(tiny_model)
    decoder = bound(model, "dynamic:nodes=auto", FREE)
    rehearse(model, decoder, Exact(), len(PROMPT) + 100)
    steps = list(decoder.decode(*turn(100, Exact())))
    assert [step.nodes for step in steps] == expected


def test_where_capturing_stops_nothing_captured_is_held(monkeypatch, tiny_model):
    model, captures = capturing(tiny_model), []

    def capture(self, operations):
        captures.append(1)
        if len(captures) == 3:
            raise RuntimeError("out of memory")
        return recorded(operations)

    monkeypatch.setattr(Graphs, "_capture", capture)
    with pytest.warns(UserWarning, match="out of memory"):
        rehearse(model, bound(model, "dynamic:nodes=auto", FREE), Exact(), 300)
    assert len(model.graphs) == 0 and len(captures) == 3
