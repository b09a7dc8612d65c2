"""Unmodified transformers models of many families attend along a tree, or are refused."""

import pytest
import torch
import transformers as tf

from decoders.accept import Exact, Sample
from decoders.model.heads import MedusaHeads
from decoders.model.model import Model, UnsupportedModel
from decoders.tree import Draft, Tree
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import generate


@pytest.mark.parametrize("family", FAMILIES)
def test_every_decoder_gives_the_tokens_of_transformers_generate(family):
    """60 tokens behind a prompt of 15, so sliding windows of 24 slide."""
    lm = randomise(FAMILIES[family]()).eval()
    expected = lm.generate(
        PROMPT[None], max_new_tokens=60, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    expected = expected[0, len(PROMPT) :].tolist()
    model = Model(lm, tiny_heads())
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


@pytest.mark.parametrize("nodes", [2, 5, 64, 256])
@pytest.mark.parametrize("heads", [1, 2, 6])
def test_depths_and_sizes_are_parameters(nodes, heads):
    model = Model(tiny_llama(), tiny_heads(heads))
    expected = generate(model, "greedy", Exact())[0]
    for depth in range(1, heads + 1):
        tokens, steps = generate(model, f"dynamic:nodes={nodes}:depth={depth}", Exact())
        assert tokens == expected
        assert {step.nodes for step in steps} == {
            min(nodes, 1 + sum(32**d for d in range(1, depth + 1)))
        }
        assert max(len(step.tokens) for step in steps) <= depth + 1


@pytest.mark.parametrize(
    ("family", "says"),
    [
        (lambda: tf.BloomForCausalLM(tf.BloomConfig(vocab_size=101, hidden_size=32, n_layer=2, n_head=4)), "Bloom"),
        (lambda: tf.MambaForCausalLM(tf.MambaConfig(vocab_size=101, hidden_size=32, num_hidden_layers=2)), "Mamba"),
    ],
)  # fmt: skip
def test_families_that_cannot_attend_a_tree_are_refused(family, says):
    with pytest.raises(UnsupportedModel, match=f"{says}.*attend a tree"):
        Model(randomise(family())).check_tree_attention()


def test_a_model_that_ignores_the_tree_mask_is_noticed(monkeypatch):
    """What a bool mask under eager attention, or a family with its own masks, would do silently."""
    model = Model(tiny_llama())
    monkeypatch.setattr(Model, "_attention_mask", lambda self, *shape: None)
    with pytest.raises(UnsupportedModel, match="differs from plain text"):
        model.check_tree_attention()


def test_the_cache_after_a_commit_is_the_cache_of_plain_text(tiny_model):
    """Positions too: key and value of every committed token as if they had been read one after the other."""
    tokens, _ = generate(tiny_model, "dynamic", Exact(), tokens=30)
    kept = [
        (layer.keys[:, :, :40].clone(), layer.values[:, :, :40].clone())
        for layer in tiny_model.cache.layers
    ]
    tiny_model.prefill(torch.tensor([*PROMPT, *tokens]), room=0)
    for (keys, values), layer in zip(kept, tiny_model.cache.layers, strict=True):
        torch.testing.assert_close(keys, layer.keys[:, :, :40], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(values, layer.values[:, :, :40], rtol=1e-4, atol=1e-5)


def test_a_cache_that_found_no_memory_is_made_anew(tiny_model, monkeypatch):
    expected = generate(tiny_model, "dynamic", Exact(), tokens=20)[0]
    with monkeypatch.context() as full:
        full.setattr(
            torch, "zeros", lambda *a, **k: (_ for _ in ()).throw(torch.OutOfMemoryError("full"))
        )
        with pytest.raises(torch.OutOfMemoryError):
            tiny_model.cache.reserve(5000)
    assert generate(tiny_model, "dynamic", Exact(), tokens=20)[0] == expected


def test_greedy_is_one_token_a_step(tiny_model):
    tokens, steps = generate(tiny_model, "greedy", Exact(), tokens=25)
    assert [len(step.tokens) for step in steps] == [1] * 25 and len(tokens) == 25


def test_a_turn_is_cut_at_eos_before_anything_is_counted(tiny_model):
    """Tokens behind an EOS inside an accepted path are not part of the answer."""
    free, _ = generate(tiny_model, "greedy", Exact(), tokens=50)
    for eos in set(free):
        tokens, steps = generate(tiny_model, "dynamic", Exact(), tokens=50, eos=[eos])
        assert tokens == free[: free.index(eos) + 1]
        assert steps[-1].finish == "eos"


@pytest.mark.parametrize("limit", [1, 2, 3, 17])
def test_the_limit_is_exact(tiny_model, limit):
    tokens, steps = generate(tiny_model, "dynamic", Exact(), tokens=limit)
    assert len(tokens) == limit and steps[-1].finish == "length"


def test_heads_see_one_row_a_step(tiny_model, monkeypatch):
    """The published code evaluates every head on all 64 nodes and keeps one."""
    rows = []
    original = MedusaHeads.forward
    monkeypatch.setattr(
        MedusaHeads,
        "forward",
        lambda self, x, first: rows.append(len(x)) or original(self, x, first),
    )
    _, steps = generate(tiny_model, "dynamic", Exact(), tokens=20)
    assert rows == [1] * (1 + len(steps))  # the last is for a step that does not come


def test_nodes_past_the_last_position_do_not_break_the_turn(tiny_model):
    """Learned positions have no entry there; such nodes are never committed."""
    model = Model(randomise(FAMILIES["gpt2"]()), tiny_heads())
    tokens, _ = generate(model, "dynamic", Exact(), tokens=model.context - len(PROMPT))
    assert len(PROMPT) + len(tokens) == model.context
    assert tokens == generate(model, "greedy", Exact(), tokens=model.context - len(PROMPT))[0]


def test_verify_reads_a_tree_as_its_paths(tiny_model):
    tree = Draft(Tree.from_parent([0, 0, 0, 1, 1, 3]), torch.tensor([7, 8, 9, 10, 11, 12]))
    tiny_model.prefill(PROMPT, room=6)
    verified = tiny_model.verify(tree).logits
    for node, path in {5: [7, 8, 10, 12], 2: [7, 9], 4: [7, 8, 11]}.items():
        plain = tiny_model.lm(torch.tensor([[*PROMPT, *path]])).logits[0, -1]
        torch.testing.assert_close(verified[node], plain, rtol=1e-4, atol=1e-4)
