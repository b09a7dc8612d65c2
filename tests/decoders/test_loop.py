"""The decoding loop. tests/bench/running/test_phases.py counts what a step costs."""

from dataclasses import replace

import pytest
import torch

from decoders.accept import Exact
from decoders.budget import Budgeted
from decoders.dynamic.decoder import Dynamic
from decoders.engine.engine import Engine
from decoders.greedy import Greedy
from decoders.loop import decode
from decoders.model.heads import MedusaHeads
from decoders.step import NotANumber, Stop
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import FREE, bound, budget_of, generate, tokens_of, turn


def test_heads_see_one_row_a_step(tiny_model, monkeypatch):
    """The published code evaluates every head on all 64 nodes and keeps one."""
    rows, original = [], MedusaHeads.forward

    def watched(self, hidden_states, num_heads):
        rows.append(len(hidden_states))
        return original(self, hidden_states, num_heads)

    monkeypatch.setattr(MedusaHeads, "forward", watched)
    _, steps = generate(tiny_model, "dynamic", Exact(), tokens=20)
    assert rows == [1] * (1 + len(steps))  # The last one is for a step that does not come.


def test_a_turn_is_cut_at_eos_before_anything_is_counted(tiny_model):
    """Tokens after an EOS inside an accepted path are not part of the answer."""
    free, _ = generate(tiny_model, "greedy", Exact(), tokens=50)
    for eos in set(free):
        tokens, steps = generate(tiny_model, "dynamic", Exact(), tokens=50, eos=[eos])
        assert tokens == free[: free.index(eos) + 1]
        assert steps[-1].finish == "eos"


def test_a_drafter_that_writes_into_the_prefills_rows_changes_no_token(tiny_model):
    """It is handed the rows from which the first token follows."""

    class Inverting(Greedy):
        def start(self, prompt, rows):
            rows.logits.mul_(-1)

    expected, _ = generate(tiny_model, "greedy", Exact(), tokens=5)
    decoder = Inverting()
    decoder.setup(tiny_model)
    steps = decode(tiny_model, decoder, PROMPT, Exact(), Stop(frozenset(), 5))
    assert tokens_of(list(steps)) == expected


class _Rounded(Dynamic):
    """A decoder that returns its log probabilities in the model's own dtype."""

    def propose(self, root, hidden_state):
        draft = super().propose(root, hidden_state)
        return replace(draft, log_prob=draft.log_prob.bfloat16())


def test_token_ids_are_exact_beside_log_probabilities_of_any_dtype():
    """One transfer has both, and bfloat16 has no number between 256 and 258."""
    model = Engine(tiny_llama(vocab_size=1000), tiny_heads(vocab=1000))
    expected, _ = generate(model, "greedy", Exact(), tokens=60)
    assert any(token > 256 and token % 2 for token in expected)
    decoder = Budgeted(_Rounded(nodes="auto"), budget_of(FREE))
    decoder.setup(model)
    assert tokens_of(list(decoder.decode(*turn(60, Exact())))) == expected


def test_a_drafter_is_not_told_of_tokens_that_are_cut_off(tiny_model):
    told, decoder = [], bound(tiny_model, "dynamic")
    decoder.after_step = told.append
    free, _ = generate(tiny_model, "greedy", Exact(), tokens=30)
    for eos in set(free):
        told.clear()
        steps = list(decoder.decode(PROMPT, Exact(), Stop(frozenset([eos]), 30)))
        assert told == [len(step.tokens) - 1 for step in steps]


@pytest.mark.parametrize("limit", [1, 2, 3, 17])
def test_the_limit_is_exact(tiny_model, limit):
    tokens, steps = generate(tiny_model, "dynamic", Exact(), tokens=limit)
    assert len(tokens) == limit and steps[-1].finish == "length"


def test_nodes_past_the_last_position_do_not_break_the_turn():
    """Learned positions have no entry there. Such nodes are never committed."""
    model = Engine(randomise(FAMILIES["gpt2"]()), tiny_heads())
    room = model.context - len(PROMPT)
    tokens, _ = generate(model, "dynamic", Exact(), tokens=room)
    assert len(tokens) == room
    assert tokens == generate(model, "greedy", Exact(), tokens=room)[0]


@pytest.mark.parametrize("static_shapes", [False, True])
def test_4096_tokens_of_context_take_no_second_buffer(static_shapes):
    model = Engine(tiny_llama(max_position_embeddings=4096), tiny_heads())
    model.static_shapes = static_shapes
    prompt = torch.arange(4000) % 101
    steps = bound(model, "dynamic:nodes=16").decode(prompt, Exact(), Stop(frozenset(), 96))
    buffers = [buffer.data_ptr() for buffer in model.cache._buffers]
    assert len(tokens_of(list(steps))) == 96
    assert buffers == [buffer.data_ptr() for buffer in model.cache._buffers]


@pytest.mark.parametrize("spec", ["greedy", "static", "dynamic", "conditional"])
def test_where_the_logits_are_no_numbers_the_turn_ends_with_their_position(tiny_model, spec):
    """What was said before counts. Behind tokens off the path the logits do not matter."""
    expected, _ = generate(tiny_model, "greedy", Exact(), tokens=40)
    place, token = next(
        (place, token)
        for place, token in enumerate(expected)
        if place >= 5 and token not in PROMPT.tolist() + expected[:place]
    )

    def spoil(module, args, kwargs, output):
        rows = kwargs["input_ids"][0, -output.logits.shape[1] :] == token
        output.logits[0, rows] = torch.nan

    tiny_model.lm.register_forward_hook(spoil, with_kwargs=True)
    decoder, said = bound(tiny_model, spec), []
    steps = decode(tiny_model, decoder, PROMPT, Exact(), Stop(frozenset(), 40))
    with pytest.raises(NotANumber, match=f"position {len(PROMPT) + place} "):
        for step in steps:
            said += step.tokens
    assert said == expected[: place + 1]
    steps = decode(tiny_model, decoder, torch.tensor([token]), Exact(), Stop(frozenset(), 40))
    with pytest.raises(NotANumber, match="position 0 "):
        next(steps)
