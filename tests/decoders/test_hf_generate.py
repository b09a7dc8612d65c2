"""transformers' own `generate`. tests/decoders/test_properties.py compares its tokens as well."""

from contextlib import nullcontext

import pytest
import torch

from decoders import registry
from decoders.accept import Exact, Sample
from decoders.draft_model import DRAFTING
from decoders.hf_generate import HFGreedy, _StepRecorder
from decoders.model.model import Model
from decoders.step import NotANumber, Stop
from tests.helpers.companions import draft_model
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama
from tests.helpers.steps import bound, made, steps_of, tokens_of, turn

SPECS = (
    "hf-greedy",
    "hf-static",
    "hf-static:slots=40",
    "prompt-lookup",
    "prompt-lookup:tokens=3:ngram=1",
    "assisted:model=tiny",
)


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize("spec", SPECS)
def test_its_tokens_are_greedys(tiny_model, spec, rule):
    expected = tokens_of(steps_of(tiny_model, "greedy", 80, rule))
    for model in (tiny_model, Model(tiny_llama(), tiny_heads())):
        assert tokens_of(steps_of(model, spec, 80, rule)) == expected


@pytest.mark.parametrize("spec", ["hf-greedy", "hf-static"])
def test_one_token_a_step(tiny_model, spec):
    steps = steps_of(tiny_model, spec, 20)
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


@pytest.mark.parametrize("spec", ["prompt-lookup:tokens=5", "assisted:model=tiny"])
def test_several_tokens_are_kept_at_a_temperature_too(tiny_model, spec):
    """Candidates were tried with the rule's noise, and so left out."""
    prompt, rule, stop = torch.full((20,), 5), Sample(0.01, seed=1), Stop(frozenset(), 60)
    files = {DRAFTING: Model(tiny_llama())}  # The same model.
    steps = list(bound(tiny_model, spec, files=files).decode(prompt, rule, stop))
    greedy = bound(tiny_model, "greedy").decode(prompt, rule, stop)
    assert tokens_of(steps) == tokens_of(list(greedy))
    assert max(len(step.tokens) for step in steps) >= 5


@pytest.mark.parametrize("spec", SPECS)
def test_where_the_logits_are_no_numbers_that_is_said(tiny_model, spec):
    tiny_model.lm.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(NotANumber, match=f"at position {len(PROMPT) - 1} are"):
        list(bound(tiny_model, spec).decode(*turn(5, Exact())))


@pytest.mark.parametrize("spec", ["prompt-lookup:tokens=3:ngram=1", "assisted:model=tiny"])
def test_logits_after_a_wrong_candidate_do_not_matter(tiny_model, spec):
    expected, spoiled = tokens_of(steps_of(tiny_model, "greedy", 40)), []

    def spoil(module, args, kwargs, output):
        logits = output.logits[0]
        candidates = kwargs["input_ids"][0, -len(logits) :][1:]
        is_right = logits[:-1].argmax(-1).eq(candidates).cumprod(0).bool()
        logits[1:][~is_right] = torch.nan
        spoiled.append(int((~is_right).sum()))

    tiny_model.lm.register_forward_hook(spoil, with_kwargs=True)
    assert tokens_of(steps_of(tiny_model, spec, 40)) == expected
    assert sum(spoiled) > 0


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_nothing_is_left_at_the_model(tiny_model, spec, fails):
    lm, stop = tiny_model.lm, Stop(frozenset(), 9)

    def fail(tokens):
        raise RuntimeError("while it generates")

    if fails:
        stop = Stop(frozenset(), 9, fail)
    hooks = [dict(lm._forward_hooks), dict(lm._forward_pre_hooks)]
    with pytest.raises(RuntimeError, match="while it generates") if fails else nullcontext():
        list(bound(tiny_model, spec).decode(PROMPT, Exact(), stop))
    assert [dict(lm._forward_hooks), dict(lm._forward_pre_hooks)] == hooks
    assert "generate" not in vars(lm)


@pytest.mark.parametrize("option", ["tokens", "ngram"])
def test_options_are_at_least_one(option):
    with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
        made(f"prompt-lookup:{option}=0")


def test_a_static_cache_is_made_once_and_again_where_it_is_too_short(tiny_model):
    decoder = bound(tiny_model, "hf-static:slots=50")
    expected = {
        length: tokens_of(steps_of(tiny_model, "greedy", length)) for length in (10, 20, 90)
    }
    caches, slots = [], []
    for length in (20, 10, 90, 20):
        assert tokens_of(list(decoder.decode(*turn(length, Exact())))) == expected[length]
        caches.append(decoder.cache)
        slots.append(decoder.cache.layers[0].keys.shape[2])
    assert caches[0] is caches[1] and caches[2] is caches[3] and caches[1] is not caches[2]
    assert slots == [50, 50, len(PROMPT) + 90, len(PROMPT) + 90]


def test_a_static_cache_holds_the_longest_turn_of_a_run(tiny_model):
    """A second cache would have the forward compiled again, within a timed turn."""
    decoder = bound(tiny_model, "hf-static")
    decoder.expect(len(PROMPT) + 60)
    caches = [list(decoder.decode(*turn(length, Exact()))) and decoder.cache for length in (9, 60)]
    assert caches[0] is caches[1] and decoder.capacity == len(PROMPT) + 60


def test_a_forward_after_the_end_is_no_step(tiny_model):
    """transformers looks for an end a step late on some devices."""
    recorder = _StepRecorder(tiny_model, Stop(frozenset({7}), 9), prompt=2, prefilled=1)
    recorder.nodes = 1
    for text in ([1, 2, 5], [1, 2, 5, 7], [1, 2, 5, 7, 0]):
        recorder.read(torch.zeros(1, 10))
        has_ended = recorder(torch.tensor([text]), None)
    assert has_ended.tolist() == [True] and recorder.committed == [5, 7]


def test_a_forward_that_may_be_compiled_has_no_hooks_of_a_turn(tiny_model):
    """It would be compiled anew for each turn."""
    lm, hooks = tiny_model.lm, []
    lm.register_forward_pre_hook(
        lambda *_: hooks.append(len(lm._forward_pre_hooks) + len(lm._forward_hooks))
    )
    list(bound(tiny_model, "hf-static").decode(*turn(5, Exact())))
    assert set(hooks) == {1}


def test_an_assistant_of_the_same_weights_is_always_right(tiny_model):
    decoder = made("assisted:model=same")
    decoder.take({DRAFTING: Model(tiny_llama())})
    decoder.setup(tiny_model)
    steps = list(decoder.decode(*turn(60, Exact())))
    assert tokens_of(steps) == tokens_of(steps_of(tiny_model, "greedy", 60))
    # How many tokens it drafts depends on how sure it is.
    assert len(steps) <= 30 and all(len(step.tokens) == step.nodes for step in steps[:-1])


def test_an_assistant_must_be_named_and_have_the_same_vocabulary(tiny_model):
    with pytest.raises(ValueError, match="it needs a model that assists: assisted:model=FOLDER"):
        made("assisted")
    decoder = made("assisted:model=other")
    decoder.take({DRAFTING: draft_model(tiny_model, vocab_size=77)})
    with pytest.raises(ValueError, match="'other' has a vocabulary of 77 tokens, and the base"):
        decoder.setup(tiny_model)


def test_a_cache_has_at_least_one_slot():
    with pytest.raises(ValueError, match="slots is 0; it must be at least 1"):
        made("hf-static:slots=0")


def test_all_decoders_of_transformers_are_tested_here():
    ours = {spec.partition(":")[0] for spec in SPECS}
    assert ours == {
        name for name, where in registry.BUILT_IN.items() if where.startswith(HFGreedy.__module__)
    }


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
