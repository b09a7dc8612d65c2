"""Hydra's trees, against a naive version of the paper's heads."""

from functools import partial

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.hydra.heads import FILE, HydraHeads
from decoders.model.model import Model
from tests.helpers.drafters import hydra_tensors, naive_hydra, tiny_hydra
from tests.helpers.models import tiny_llama
from tests.helpers.naive_trees import compare_trees
from tests.helpers.steps import FREE, bound, steps_of, tokens_of


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("plus_plus", [False, True])
@pytest.mark.parametrize("spec", ["hydra:nodes=14:topk=4:beam=3", "hydra:nodes=6:depth=2"])
def test_every_tree_is_that_of_the_paper(static_shapes, plus_plus, spec):
    model = Engine(tiny_llama())
    model.static_shapes = static_shapes
    tensors = hydra_tensors(plus_plus=plus_plus)
    decoder = bound(model, spec, files={FILE: HydraHeads.from_published(tensors, model)})
    naive = partial(naive_hydra, Model(tiny_llama()), tensors)
    compare_trees(decoder, naive, tokens=40)


@pytest.mark.parametrize("rule", [Exact, lambda: Sample(0.7, seed=3)])
def test_tokens_are_greedys_with_a_budget_too(rule):
    model = Engine(tiny_llama())
    files = {FILE: tiny_hydra(model)}
    expected = tokens_of(steps_of(model, "greedy", rule=rule()))
    for model.static_shapes in (False, True):
        for spec in ("hydra", "hydra:nodes=1", "hydra:nodes=auto"):
            steps = steps_of(model, spec, rule=rule(), seconds=FREE, files=files)
            assert tokens_of(steps) == expected


def test_a_tree_is_no_deeper_than_there_are_heads():
    model = Engine(tiny_llama())
    with pytest.raises(ValueError, match="the tree has depth 6, but the model has 5 heads"):
        bound(model, "hydra:depth=6", files={FILE: tiny_hydra(model)})


def test_heads_without_projections_end_in_the_base_models():
    model = Engine(tiny_llama())
    tensors = {n: t for n, t in hydra_tensors().items() if not n.startswith("hydra_lm_head.")}
    heads = HydraHeads.from_published(tensors, model)
    inputs = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    expected = model.project(heads.hydra_mlp[0](inputs))
    torch.testing.assert_close(heads(0, inputs), expected)
