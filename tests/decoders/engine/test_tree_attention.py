"""The engine's own attention, in plain PyTorch: where it is used, and what it computes."""

import pytest
import torch
from torch.nn import functional as F

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.engine.tree_attention import (
    ATTENTION_PURPOSE,
    plain_tree_attention,
    use_tree_attention,
)
from decoders.model.attention import tree_mask
from decoders.tree import Tree
from tests.helpers.models import FAMILIES, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import steps_of, tokens_of

SPECS = ("greedy", "static", "dynamic:nodes=16", "conditional:nodes=16", "recycling:nodes=16")
LAYERS = 2


class Watched:
    """Plain attention that counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *given):
        self.calls += 1
        return plain_tree_attention(*given)


def engine_with(attend, family: str = "llama") -> Engine:
    model = Engine(randomise(FAMILIES[family]()), tiny_heads())
    model.static_shapes = True
    use_tree_attention(model.lm.config.get_text_config(), model.masks, model.changes, attend)
    return model


@pytest.mark.parametrize("parent", [[0], [0, 0, 0, 1, 1, 3], [0, *range(63)]], ids=len)
@pytest.mark.parametrize("committed", [0, 7, 150])
def test_it_is_attention_with_the_mask_of_a_tree(committed, parent):
    """What lies in unused slots does not matter, even where it is no number."""
    generator = torch.Generator().manual_seed(committed)
    tree = Tree.from_parent(parent)
    end, first = committed + len(tree), len(tree) // 2
    query = torch.randn(6, len(tree), 8, generator=generator)[:, first:]
    keys, values = torch.randn(2, 3, 256, 8, generator=generator)
    mask = tree_mask(tree, torch.float32, torch.finfo(torch.float32).min, committed, 256)[first:]
    expected = F.scaled_dot_product_attention(
        query, keys[:, :end], values[:, :end], mask[:, :end], scale=0.3, enable_gqa=True
    )
    keys[:, end:] = values[:, end:] = torch.nan
    found = plain_tree_attention(
        query, keys, values, mask, torch.tensor([committed]), len(tree), 0.3
    )
    torch.testing.assert_close(found, expected.transpose(0, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "gpt2"])
def test_static_forwards_use_it_and_give_the_same_tokens(family, rule):
    attend = Watched()
    model = engine_with(attend, family)
    plain = Engine(randomise(FAMILIES[family]()), tiny_heads())
    for spec in SPECS:
        attend.calls = 0
        steps = steps_of(model, spec, 140, rule)
        assert attend.calls == LAYERS * len(steps), spec
        assert tokens_of(steps) == tokens_of(steps_of(plain, spec, 140, rule)), spec


@pytest.mark.parametrize("spec", ["hydra:nodes=16", "eagle:nodes=16:depth=3"])
def test_captured_steps_use_it_too(captured, spec):
    plain, model = engine_with(plain_tree_attention), engine_with(plain_tree_attention)
    model.graphs.captures = True
    assert tokens_of(steps_of(model, spec, 140)) == tokens_of(steps_of(plain, spec, 140))
    assert len(model.graphs) > 0


@pytest.mark.parametrize(
    ("family", "layers"), [("mistral-window", (2, 0)), ("qwen2-window", (2, 1))]
)
def test_windows_that_slide_stay_with_transformers(family, layers):
    """layers: that use it while the window holds the whole bucket, and afterwards."""
    for window, number in zip((300, 24), layers, strict=True):
        attend = Watched()
        model = engine_with(attend, family)
        plain = Engine(randomise(FAMILIES[family]()), tiny_heads())
        for each in (model, plain):
            each.masks.window = window
        steps = steps_of(model, "dynamic:nodes=16", 60)
        assert attend.calls == number * len(steps)
        assert tokens_of(steps) == tokens_of(steps_of(plain, "dynamic:nodes=16", 60))


def test_a_model_without_sdpa_keeps_its_attention():
    model = engine_with(Watched(), "llama-eager")
    assert ATTENTION_PURPOSE not in model.changes.listed()


def test_it_is_listed_and_can_be_switched_off():
    attend = Watched()
    model = engine_with(attend)
    config = model.lm.config
    expected = tokens_of(steps_of(model, "dynamic:nodes=16"))
    assert ATTENTION_PURPOSE in model.changes.listed() and attend.calls > 0
    attend.calls = 0
    for off in (model.as_loaded(), model.changes.without(ATTENTION_PURPOSE)):
        with off:
            assert config._attn_implementation == "sdpa"
            assert tokens_of(steps_of(model, "dynamic:nodes=16")) == expected
    assert attend.calls == 0 and config._attn_implementation != "sdpa"


def test_what_it_cannot_compute_goes_to_transformers():
    """Steps without static shapes, and more rows than a tree has."""
    attend = Watched()
    model = engine_with(attend)
    model.static_shapes = False
    steps_of(model, "dynamic:nodes=16")
    model.static_shapes = True
    long = Engine(tiny_llama(max_position_embeddings=600), tiny_heads())
    long.static_shapes = True
    use_tree_attention(long.lm.config, long.masks, long.changes, attend)
    steps_of(long, "dynamic:nodes=200", 20)
    assert attend.calls == 0
