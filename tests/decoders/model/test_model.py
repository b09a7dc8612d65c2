"""Unmodified transformers models of many families attend along a tree, or are refused."""

import pytest
import torch
import transformers as tf

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.model.model import Model, UnsupportedModel
from decoders.tree import Draft, Tree
from tests.helpers.models import FAMILIES, PROMPT, TINY, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import bound, generate


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", [Model, Engine])
def test_every_decoder_gives_the_tokens_of_transformers_generate(kind, family):
    """60 tokens after a prompt of 15, so that sliding windows of 24 slide."""
    lm = randomise(FAMILIES[family]()).eval()
    text = lm.generate(
        PROMPT[None], max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    expected = text[0, len(PROMPT) :].tolist()
    model = kind(lm, tiny_heads())
    model.check_tree_attention()
    sampled = generate(model, "greedy", Sample(0.8, seed=4))[0]
    for spec in (
        "greedy",
        "static",
        "dynamic",
        "dynamic:nodes=9:depth=2:normalise=vocab",
        "conditional",
    ):
        assert generate(model, spec, Exact())[0] == expected, spec
        assert generate(model, spec, Sample(0.8, seed=4))[0] == sampled, spec


def tiny_bloom() -> tf.BloomForCausalLM:
    return tf.BloomForCausalLM(tf.BloomConfig(vocab_size=101, hidden_size=32, n_layer=2, n_head=4))


def tiny_mamba() -> tf.MambaForCausalLM:
    return tf.MambaForCausalLM(tf.MambaConfig(vocab_size=101, hidden_size=32, num_hidden_layers=2))


@pytest.mark.parametrize("kind", [Model, Engine])
@pytest.mark.parametrize(("family", "says"), [(tiny_bloom, "Bloom"), (tiny_mamba, "Mamba")])
def test_families_that_cannot_attend_a_tree_are_refused(kind, family, says):
    with pytest.raises(UnsupportedModel, match=f"{says}.*attend a tree"):
        kind(randomise(family())).check_tree_attention()


def test_a_model_whose_logits_are_nan_is_refused():
    lm = tiny_llama()
    lm.get_output_embeddings().weight.data.fill_(torch.nan)
    with pytest.raises(UnsupportedModel, match="its logits are NaN"):
        Engine(lm).check_tree_attention()


@pytest.mark.parametrize("static_shapes", [False, True])
def test_verify_reads_a_tree_as_its_paths(tiny_model, static_shapes):
    tiny_model.static_shapes = static_shapes
    draft = Draft(Tree.from_parent([0, 0, 0, 1, 1, 3]), torch.tensor([7, 8, 9, 10, 11, 12]))
    tiny_model.prefill(PROMPT, room=6)
    verified = tiny_model.verify(draft)
    assert verified.draft.token.equal(draft.token)
    logits = verified.logits.clone()
    for node, path in {5: [7, 8, 10, 12], 2: [7, 9], 4: [7, 8, 11]}.items():
        plain = tiny_model.lm(torch.tensor([[*PROMPT, *path]])).logits[0, -1]
        torch.testing.assert_close(logits[node], plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_read_level_by_level_is_the_tree_read_at_once(family, static_shapes):
    """Where the window of a sliding layer ends inside the tree, too."""
    model = Engine(randomise(FAMILIES[family]()))
    model.static_shapes = static_shapes
    draft = Draft(Tree.from_parent([0, 0, 0, 1, 1, 3]), torch.tensor([7, 8, 9, 10, 11, 12]))
    prompt = torch.cat((PROMPT, PROMPT))
    model.prefill(prompt, room=9)
    expected = model.verify(draft).logits.clone()
    model.prefill(prompt, room=9)
    for first, nodes in ((0, 1), (1, 3), (3, 6)):
        rows = model.verify(draft.truncated(nodes), first).logits
        assert model.length == len(prompt)
        torch.testing.assert_close(rows, expected[first:nodes], rtol=1e-4, atol=1e-4)


def test_the_first_heads_alone_guess_as_they_do_among_all(tiny_model):
    hidden_state = torch.randn(1, 32)
    first = tiny_model.draft_logits(hidden_state, 2)
    assert first.equal(tiny_model.draft_logits(hidden_state)[:2])


def test_hidden_states_are_what_the_heads_read(tiny_model):
    """Of a plain text, as of the same text in a prefill; the cache is left alone."""
    rows = tiny_model.prefill(PROMPT, room=9, all_rows=True)
    hidden_states, logits = rows.hidden_states.clone(), rows.logits
    assert hidden_states.shape == (len(PROMPT), 32) and logits.shape == (len(PROMPT), 101)
    found = tiny_model.hidden_states_of(PROMPT.unsqueeze(0))
    torch.testing.assert_close(found[0], hidden_states, rtol=1e-4, atol=1e-5)
    projection = tiny_model.lm.get_output_embeddings()
    torch.testing.assert_close(projection(found[0]), logits, rtol=1e-4, atol=1e-4)
    assert tiny_model.length == len(PROMPT)
    alone = tiny_model.prefill(PROMPT, room=9, all_rows=True, all_logits=False)
    torch.testing.assert_close(alone.hidden_states, hidden_states)
    torch.testing.assert_close(alone.logits, logits[-1:], rtol=1e-4, atol=1e-4)
    last = tiny_model.prefill(PROMPT, room=9)
    assert last.hidden_states.shape == (1, 32) and last.logits.shape == (1, 101)
    torch.testing.assert_close(last.logits[0], logits[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gpt2", "granite", "cohere"])
def test_hidden_states_are_projected_to_the_models_own_logits(family):
    """Granite and Cohere scale what their output projection gives."""
    model = Model(randomise(FAMILIES[family]()))
    rows = model.prefill(PROMPT, room=1, all_rows=True)
    torch.testing.assert_close(model.project(rows.hidden_states), rows.logits, rtol=1e-4, atol=1e-4)


def test_capped_logits_are_projected_as_near_as_a_factor_comes():
    config = tf.Gemma2Config(**TINY, final_logit_softcapping=3.0)
    model = Model(randomise(tf.Gemma2ForCausalLM(config)))
    rows = model.prefill(PROMPT, room=1, all_rows=True)
    weight = model.lm.get_output_embeddings().weight
    found, plain = model.project(rows.hidden_states), rows.hidden_states @ weight.T
    assert 0.2 < model.logit_scale < 0.98
    off, off_plain = ((each - rows.logits).square().mean() for each in (found, plain))
    assert off < off_plain / 3


def test_a_model_without_heads_has_none(tiny_model):
    assert (tiny_model.num_heads, Model(tiny_llama()).num_heads) == (4, 0)
    assert bound(Model(tiny_llama()), "greedy").max_nodes == 1


def test_a_model_without_an_output_projection_is_refused():
    lm = tiny_llama()
    lm.get_output_embeddings = lambda: None
    with pytest.raises(UnsupportedModel, match="no output projection"):
        Model(lm)
