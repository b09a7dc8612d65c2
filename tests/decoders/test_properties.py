"""What holds for every tree and every model, on random ones.

The suite tries a few, always the same. With MEDUSA_BENCH_PROPERTIES=full it tries 10,000 trees,
10,000 selections and 200 models, each with every decoder of ours at two temperatures.
"""

import os

import pytest
import torch
import transformers as tf
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from decoders import registry
from decoders.accept import Exact, Sample
from decoders.budget import LADDER, Budgeted
from decoders.decoder import Decoder
from decoders.engine.engine import Engine
from decoders.hydra.heads import FILE as HYDRA
from decoders.model.attention import tree_mask
from decoders.static.decoder import FILE as TREE
from decoders.static.rank_tree import RankTree
from decoders.step import Stop
from decoders.tree import Tree
from tests.helpers.companions import files_for, spec_of
from tests.helpers.drafters import tiny_hydra
from tests.helpers.models import randomise, tiny_heads, tiny_llama
from tests.helpers.steps import bound, budget_of, made, tokens_of
from tests.helpers.trees import brute_force, chosen_paths

FULL = os.environ.get("MEDUSA_BENCH_PROPERTIES") == "full"
CONTEXT = 96


def tries(few: int, many: int):
    return settings(
        max_examples=many if FULL else few,
        derandomize=not FULL,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # To shrink a model would be to load hundreds more.
    )


parents = st.integers(1, 48).flatmap(
    lambda nodes: st.tuples(st.just(0), *(st.integers(0, node - 1) for node in range(1, nodes)))
)


@tries(100, 10_000)
@given(parents, st.integers(0, 30), st.integers(0, 9))
def test_a_mask_is_the_ancestors_and_what_is_committed(parent, committed, spare):
    tree = Tree.from_parent(parent)
    width = committed + len(parent) + spare
    expected = torch.ones(len(parent), width, dtype=torch.int8)
    expected[:, :committed] = 0
    for node in range(len(parent)):
        above = node
        while True:
            expected[node, committed + above] = 0
            if above == 0:
                break
            assert parent[above] < above
            above = parent[above]
    assert tree_mask(tree, torch.int8, 1, committed, width).equal(expected)
    assert tree_mask(tree, torch.int8, 1, torch.tensor([committed]), width).equal(expected)


@tries(60, 10_000)
@given(
    st.sampled_from([(1, 9), (2, 8), (3, 5), (4, 3), (5, 2)]),
    st.integers(2, 70),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 0.01, 1.0, 4.0, 30.0]),
    st.booleans(),
)
def test_the_selected_paths_are_the_true_top(shape, nodes, seed, spread, rounded):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread
    logits = logits.round() if rounded else logits
    log_prob = logits.sort(-1, descending=True).values.log_softmax(-1)
    assert chosen_paths(log_prob, nodes) == brute_force(log_prob, nodes)


@st.composite
def models(draw) -> Engine:
    family = draw(st.sampled_from(["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3", "GPT2"]))
    heads = draw(st.sampled_from([1, 2, 4]))
    hidden, layers = 8 * heads, draw(st.integers(1, 3))
    vocab, seed = draw(st.integers(5, 60)), draw(st.integers(0, 10_000))
    if family == "GPT2":
        config = tf.GPT2Config(
            vocab_size=vocab, n_embd=hidden, n_layer=layers, n_head=heads, n_positions=CONTEXT
        )
        lm = tf.GPT2LMHeadModel(config)
    else:
        name = "Gemma3TextConfig" if family == "Gemma3" else f"{family}Config"
        has_window = family in ("Mistral", "Gemma3")
        config = getattr(tf, name)(
            vocab_size=vocab,
            hidden_size=hidden,
            intermediate_size=16,
            num_hidden_layers=layers,
            head_dim=8,
            num_attention_heads=heads,
            num_key_value_heads=draw(st.sampled_from([n for n in (1, 2, 4) if heads % n == 0])),
            max_position_embeddings=CONTEXT,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            sliding_window=draw(st.sampled_from([7, 24]) if has_window else st.none()),
        )
        lm = getattr(tf, f"{family}ForCausalLM")(config)
    medusa = tiny_heads(draw(st.integers(1, 5)), hidden, vocab, seed + 1)
    model = Engine(randomise(lm.eval(), seed), medusa)
    model.static_shapes = draw(st.booleans())
    return model


@st.composite
def rank_trees(draw, model: Engine) -> RankTree:
    """A static tree that fits the model."""
    paths: list[tuple[int, ...]] = [()]
    for _ in range(draw(st.integers(1, 12))):
        above = paths[draw(st.integers(0, len(paths) - 1))]
        path = (*above, draw(st.integers(0, min(3, model.vocab - 1))))
        if len(path) <= model.num_heads and path not in paths:
            paths.append(path)
    return RankTree(paths[1:])


@st.composite
def decoders(draw, model: Engine) -> dict[str, Decoder | Budgeted]:
    """By name, every decoder of ours, Hydra++, and one with a budget. None is set up yet."""
    options = {
        "nodes": draw(st.integers(1, 40)),
        "topk": draw(st.integers(1, min(model.vocab, 12))),
        "depth": draw(st.none() | st.integers(1, model.num_heads)),
    }
    own_tree = {TREE: draw(rank_trees(model))}
    drafters: dict[str, Decoder | Budgeted] = {}
    for name in registry.BUILT_IN:
        drafters[name] = made(spec_of(name), {} if name == "static" else options)
        drafters[name].take(own_tree if name == "static" else files_for(drafters[name], model))
    drafters["conditional and suffix"] = made("conditional:suffix=4", options)
    drafters["hydra++"] = made("hydra", options)
    drafters["hydra++"].take({HYDRA: tiny_hydra(model, plus_plus=True)})
    slope = draw(st.sampled_from([0.0, 0.01, 0.2, 3.0]))  # One-node steps that a node costs.
    auto = made(
        draw(st.sampled_from(["dynamic", "hydra", "eagle", "draft:model=tiny"])),
        options | {"nodes": "auto"},
    )
    auto.take(files_for(auto, model))
    drafters["auto"] = Budgeted(auto, budget_of([1 + slope * (size - 1) for size in LADDER]))
    return drafters


def spelt(tokens: list[int]) -> str:
    """The text of tokens, of which some are two characters and some none."""
    return "".join("abcde"[token % 5] * (token % 3) for token in tokens)


def why_it_ends(tokens: list[int], stop: Stop) -> str | None:
    """Why a turn ends with the last of these tokens. None: it goes on."""
    if tokens[-1] in stop.eos:
        return "eos"
    return "stop" if stop.text(tokens) else "length" if len(tokens) == stop.max_tokens else None


def same_but_for_a_tie(
    model: Engine, prompt: list[int], ours: list[int], expected: list[int]
) -> bool:
    """Equal, or different first where the two likeliest logits are too near for float32."""
    if ours == expected:
        return True
    pairs = enumerate(zip(ours, expected, strict=False))
    first = next((place for place, (a, b) in pairs if a != b), None)
    if first is None:
        return False
    best = model.prefill(torch.tensor(prompt + expected[:first]), room=0).logits[-1].topk(2).values
    return bool(best[0] - best[1] < 1e-5 * best[0].abs())


@tries(8, 200)
@given(st.data())
def test_every_decoder_is_greedy_and_leaves_the_cache_of_plain_text(data):
    model = data.draw(models())
    drafters = data.draw(decoders(model))
    prompt = data.draw(st.lists(st.integers(0, model.vocab - 1), min_size=1, max_size=30))
    eos = data.draw(st.frozensets(st.integers(0, model.vocab - 1), max_size=3))
    strings = data.draw(st.lists(st.text("abcde", min_size=2, max_size=5), max_size=3))
    most = data.draw(st.sampled_from([20, 40, 30, 7, 2, 1]))  # The first ones are drawn most.
    stop = Stop(eos, most, lambda tokens: any(string in spelt(tokens) for string in strings))
    seed = data.draw(st.integers(0, 2**40))
    for rule in (Exact, lambda: Sample(0.8, seed)):
        expected = None
        for name in sorted(drafters, key=lambda name: name != "greedy"):
            decoder = drafters[name]
            decoder.setup(model)
            steps = list(decoder.decode(torch.tensor(prompt), rule(), stop))
            tokens = tokens_of(steps)
            expected = tokens if expected is None else expected
            assert all(step.tokens for step in steps), name
            assert [step.finish for step in steps[:-1]] == [None] * (len(steps) - 1), name
            assert steps[-1].finish == why_it_ends(tokens, stop), name
            shorter = [tokens[:count] for count in range(1, len(tokens))]
            assert not any(why_it_ends(each, stop) for each in shorter), name
            if type(decoder).decode in (Decoder.decode, Budgeted.decode):  # Our own loop.
                for step in steps:
                    assert 1 <= len(step.tokens) <= step.nodes <= decoder.max_nodes, name
                check_cache(model, [*prompt, *tokens], name)
            if rule is Exact:
                assert same_but_for_a_tie(model, prompt, tokens, expected), (name, tokens, expected)
            else:
                assert tokens == expected, name


def check_cache(model: Engine, text: list[int], name: str) -> None:
    """The cache holds every committed token's key and value as if the text had been read at once.

    Keys depend on positions, so these are checked as well.
    """
    kept = [
        (layer.keys[:, :, : len(text)].clone(), layer.values[:, :, : len(text)].clone())
        for layer in model.cache.layers
    ]
    model.prefill(torch.tensor(text), room=0)
    for pair, layer in zip(kept, model.cache.layers, strict=True):
        for ours, plain in zip(pair, (layer.keys, layer.values), strict=True):
            expected = plain[:, :, : len(text)]
            torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_a_moved_cache_slot_would_be_noticed():
    model = Engine(tiny_llama(), tiny_heads())
    decoder = bound(model, "dynamic")
    steps = list(decoder.decode(torch.tensor([1, 5, 9]), Exact(), Stop(frozenset(), 12)))
    text = [1, 5, 9, *tokens_of(steps)]
    keys = model.cache.layers[0].keys
    with torch.inference_mode():
        keys[:, :, [4, 5]] = keys[:, :, [5, 4]].clone()
    with pytest.raises(AssertionError):
        check_cache(model, text, "swapped")
