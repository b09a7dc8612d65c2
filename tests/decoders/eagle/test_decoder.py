"""EAGLE's trees, against a naive version that computes everything anew for every guess."""

from functools import partial

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.best_nodes import NO_SCORE
from decoders.eagle.head import FILE, EagleHead
from decoders.engine.engine import Engine
from decoders.model.model import Model
from tests.helpers.drafters import eagle_tensors, naive_beam, naive_eagle, paths_of, tiny_eagle
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.naive_trees import compare_trees
from tests.helpers.steps import COSTLY, FREE, GROWING, bound, steps_of, tokens_of, turn


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize(
    "spec", ["eagle:nodes=14:topk=4:beam=3:depth=4", "eagle:nodes=3:depth=2", "eagle:nodes=30"]
)
def test_every_tree_is_that_of_the_paper(static_shapes, spec):
    model = Engine(tiny_llama())
    model.static_shapes = static_shapes
    tensors = eagle_tensors()
    decoder = bound(model, spec, files={FILE: EagleHead.from_published(tensors, model)})
    naive = partial(naive_eagle, Model(tiny_llama()), tensors)
    compare_trees(decoder, naive, tokens=30)


def test_its_probabilities_are_those_of_a_family_that_scales_logits():
    model = Engine(randomise(FAMILIES["granite"]()))
    tensors = eagle_tensors()
    files = {FILE: EagleHead.from_published(tensors, model)}
    decoder = bound(model, "eagle:nodes=14:topk=4:beam=3:depth=4", files=files)
    plain, text = Model(randomise(FAMILIES["granite"]())), PROMPT.tolist()
    for step in decoder.decode(*turn(12, Exact())):
        unscaled = naive_eagle(plain, tensors, text, int(step.draft.token[0]))
        expected = naive_beam(lambda path, logits=unscaled: logits(path) / 2, 14, 4, 3, 4)
        assert paths_of(step.draft) == pytest.approx(expected, abs=1e-3)
        text += step.tokens


@pytest.mark.parametrize("rule", [Exact, lambda: Sample(0.7, seed=3)])
def test_tokens_are_greedys_with_a_budget_too(rule):
    model = Engine(tiny_llama())
    files = {FILE: tiny_eagle(model)}
    expected = tokens_of(steps_of(model, "greedy", rule=rule()))
    for model.static_shapes in (False, True):
        for spec in ("eagle", "eagle:nodes=1", "eagle:nodes=auto"):
            for seconds in (FREE, GROWING, COSTLY):
                steps = steps_of(model, spec, rule=rule(), seconds=seconds, files=files)
                assert tokens_of(steps) == expected


@pytest.mark.parametrize("family", ["gpt2", "gemma3-window", "phi", "qwen3"])
def test_any_family_can_have_such_a_head(family):
    model = Engine(randomise(FAMILIES[family]()), tiny_heads())
    files = {FILE: tiny_eagle(model)}
    expected = tokens_of(steps_of(model, "greedy", tokens=20))
    assert tokens_of(steps_of(model, "eagle:nodes=9", tokens=20, files=files)) == expected


def test_a_second_turn_forgets_the_first():
    """The same prompt gets the same trees, whatever was decoded before."""
    model = Engine(tiny_llama())
    decoder = bound(model, "eagle:nodes=9", files={FILE: tiny_eagle(model)})
    first, second = (
        [paths_of(step.draft) for step in decoder.decode(*turn(20, Exact()))] for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("static_shapes", [False, True])
def test_numbers_that_a_failed_turn_left_are_not_read(static_shapes):
    """A NaN in an unused slot would reach every later draft."""
    model = Engine(tiny_llama())
    model.static_shapes = static_shapes
    decoder = bound(model, "eagle:nodes=9", files={FILE: tiny_eagle(model)})
    for _ in range(2):
        steps = list(decoder.decode(*turn(12, Exact())))
        assert all(step.draft.log_prob.gt(NO_SCORE / 2).all() for step in steps)
        with torch.inference_mode():
            for buffer in decoder.layer.cache._buffers:
                buffer.fill_(torch.nan)
