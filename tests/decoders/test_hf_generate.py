"""transformers' own `generate`. tests/decoders/test_properties.py compares its tokens as well."""

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.model.model import Model
from decoders.step import NotANumber, Stop
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama
from tests.helpers.steps import bound, made, steps_of, tokens_of, turn

SPECS = ("hf-greedy", "prompt-lookup", "prompt-lookup:tokens=3:ngram=1")


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize("spec", SPECS)
def test_its_tokens_are_greedys(tiny_model, spec, rule):
    expected = tokens_of(steps_of(tiny_model, "greedy", 80, rule))
    for model in (tiny_model, Model(tiny_llama(), tiny_heads())):
        assert tokens_of(steps_of(model, spec, 80, rule)) == expected


def test_one_token_a_step(tiny_model):
    steps = steps_of(tiny_model, "hf-greedy", 20)
    assert [(len(step.tokens), step.nodes) for step in steps] == [(1, 1)] * 20
    assert [step.finish for step in steps] == [None] * 19 + ["length"]


def test_prompt_lookup_keeps_several_tokens_of_a_text_that_repeats_itself(tiny_model):
    prompt, stop = torch.full((20,), 5), Stop(frozenset(), 100)
    greedy = bound(tiny_model, "greedy").decode(prompt, Exact(), stop)
    decoder = bound(tiny_model, "prompt-lookup:tokens=5")
    steps = list(decoder.decode(prompt, Exact(), stop))
    assert tokens_of(steps) == tokens_of(list(greedy))
    assert max(len(step.tokens) for step in steps) == 6
    assert all(len(step.tokens) <= step.nodes <= 6 for step in steps)


@pytest.mark.parametrize("spec", SPECS)
def test_where_the_logits_are_no_numbers_that_is_said(tiny_model, spec):
    tiny_model.lm.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(NotANumber):
        list(bound(tiny_model, spec).decode(*turn(5, Exact())))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_left_at_the_model(tiny_model, spec, fails):
    lm, stop = tiny_model.lm, Stop(frozenset(), 9)

    def fail(tokens):
        raise RuntimeError("while it generates")

    if fails:
        stop = Stop(frozenset(), 9, fail)
    hooks = [dict(lm._forward_hooks), dict(lm._forward_pre_hooks)]
    try:
        list(bound(tiny_model, spec).decode(PROMPT, Exact(), stop))
    except RuntimeError:
        assert fails
    assert [dict(lm._forward_hooks), dict(lm._forward_pre_hooks)] == hooks
    assert "generate" not in vars(lm)


@pytest.mark.parametrize("option", ["tokens", "ngram"])
def test_options_are_at_least_one(option):
    with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
        made(f"prompt-lookup:{option}=0")


REQUESTS = (
    {"repetition_penalty": 1.3},
    {"no_repeat_ngram_size": 2},
    {"suppress_tokens": [40, 41, 42]},
    {"min_new_tokens": 20},
    {"forced_eos_token_id": 2},
    {"num_beams": 2},
    {"max_length": 20},
    {"max_time": 1e-9},
    {"stop_strings": ["e"]},
    {"eos_token_id": list(range(3, 60))},
    {"do_sample": True, "temperature": 0.7, "top_k": 20, "encoder_repetition_penalty": 1.2},
)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("asked", REQUESTS, ids=lambda asked: next(iter(asked)))
def test_what_a_checkpoint_asks_of_generate_changes_no_token(spec, asked):
    """No other decoder knows of it; with `max_time`, hf-greedy was the fastest."""
    lm = tiny_llama()
    expected = tokens_of(steps_of(Model(lm, tiny_heads()), "greedy", 40))
    lm.generation_config.update(**asked)
    assert tokens_of(steps_of(Model(lm, tiny_heads()), spec, 40)) == expected
