"""Models whose rows depend on more than a node and its ancestors are noticed, near and far."""

from copy import deepcopy

import pytest
import torch
import transformers as tf

from decoders.accept import Exact
from decoders.engine.engine import Engine
from decoders.model.model import Model, UnsupportedModel
from decoders.step import Stop
from tests.helpers.models import FAMILIES, PROMPT, TINY, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import bound, tokens_of

SWITCH = 48  # Positions at which LongRoPE takes its other factors.


def longrope() -> tf.Phi3ForCausalLM:
    return tf.Phi3ForCausalLM(
        tf.Phi3Config(
            **TINY,
            original_max_position_embeddings=SWITCH,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "short_factor": [1.0] * 4,
                "long_factor": [4.0, 8.0, 12.0, 16.0],
                "original_max_position_embeddings": SWITCH,
            },
        )
    )


def dynamic_ntk(switch: int) -> tf.LlamaForCausalLM:
    """Its rotary embedding was made for `switch` positions; its context is longer."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    lm = tf.LlamaForCausalLM(
        tf.LlamaConfig(**TINY | {"max_position_embeddings": switch}, rope_parameters=rope)
    )
    lm.model.rotary_emb.config = deepcopy(lm.config)
    lm.config.max_position_embeddings = TINY["max_position_embeddings"]
    return lm


@pytest.mark.parametrize("kind", [Model, Engine])
@pytest.mark.parametrize(
    ("made", "context"),
    [
        (longrope, SWITCH),
        (lambda: dynamic_ntk(90), 90),
        (lambda: dynamic_ntk(160), 160),
        (FAMILIES["llama"], 160),
        (FAMILIES["gpt2"], 160),
    ],
    ids=["longrope", "dynamic NTK", "dynamic NTK that never switches", "llama", "gpt2"],
)
def test_the_context_ends_where_positions_are_computed_in_another_way(kind, made, context):
    model = kind(randomise(made()), tiny_heads())
    model.check_tree_attention()
    assert model.context == context


def test_up_to_the_switch_every_decoder_gives_greedys_tokens():
    """Without a lower limit none would: a tree crosses the switch before its path does."""
    model = Engine(randomise(longrope()), tiny_heads())
    model.check_tree_attention()
    stop = Stop(frozenset(), model.context - len(PROMPT))
    expected = model.lm.generate(
        PROMPT[None], max_new_tokens=stop.max_tokens, do_sample=False, eos_token_id=None
    )[0, len(PROMPT) :]
    for spec in ("greedy", "static", "dynamic:nodes=8", "conditional:nodes=8", "hf-greedy"):
        steps = list(bound(model, spec).decode(PROMPT, Exact(), stop))
        assert tokens_of(steps) == expected.tolist(), spec


@pytest.mark.parametrize("kind", [Model, Engine])
def test_a_window_that_the_model_does_not_have_is_noticed(kind):
    """The configuration names one that Llama's code never reads. Near trees are right."""
    model = kind(tiny_llama(sliding_window=24))
    with pytest.raises(UnsupportedModel, match=r"differs from plain text at position 157 by"):
        model.check_tree_attention()


def test_a_window_that_only_the_model_has_is_noticed():
    lm = randomise(FAMILIES["mistral-window"]())
    model = Engine(lm)
    model.masks.window = None
    with pytest.raises(UnsupportedModel, match="differs from plain text at position"):
        model.check_tree_attention()


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_is_left_of_the_trial(family):
    lm = randomise(FAMILIES[family]())
    model = Engine(lm, tiny_heads())
    before = bound(model, "greedy").decode(PROMPT, Exact(), Stop(frozenset(), 9))
    expected = tokens_of(list(before))
    model.check_tree_attention()
    assert model.cache.capacity == 0 and model.context == 160
    after = bound(model, "greedy").decode(PROMPT, Exact(), Stop(frozenset(), 9))
    assert tokens_of(list(after)) == expected


def test_made_up_slots_are_like_the_committed_ones_and_all_different(tiny_model):
    tiny_model.prefill(PROMPT, room=50)
    layer = tiny_model.cache.layers[0]
    committed = layer.keys[:, :, : len(PROMPT)].clone()
    with torch.inference_mode():
        tiny_model.cache.make_up(60)
    assert tiny_model.length == 60
    assert layer.keys[:, :, : len(PROMPT)].equal(committed)
    made_up = layer.keys[0, 0, :60]
    assert len(torch.unique(made_up, dim=0)) == 60
    assert 0.5 < made_up.std() / committed.std() < 3
