"""An engine computes what `Model` computes, and all that it changes can be listed and undone."""

import sys
from types import ModuleType

import pytest
import torch
from transformers.integrations import sdpa_attention
from transformers.models.llama import modeling_llama

from decoders.accept import Exact, Sample, Threshold
from decoders.acceptance import Typical
from decoders.engine import engine as engine_module
from decoders.engine import few_rows
from decoders.engine.engine import GROUPED_QUERIES, Engine
from decoders.engine.fused import ROTATION
from decoders.model.model import Model
from decoders.tree import Draft, Tree
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import GROWING, OWN_TREE, bound, steps_of, tokens_of, turn

SPECS = (
    "greedy",
    "static",
    "static:nodes=auto",
    "dynamic",
    "dynamic:nodes=9:depth=2:normalise=vocab",
    "dynamic:nodes=auto",
    "conditional",
    "conditional:nodes=auto",
    "recycling",
    "draft:model=tiny",
    "draft:model=tiny:nodes=auto",
    "hf-greedy",
    "hf-static",
    "prompt-lookup",
    "assisted:model=tiny",
)
FEW_ROWS = "linear layer for few rows"
LAYERS = 15  # Linear layers of the tiny Llama: seven in each of two blocks, and the projection.


@pytest.fixture(autouse=True)
def transformers_as_installed(monkeypatch):
    """What engines change in modules of transformers is as installed, and put back afterwards.

    Engines of other tests may have changed it already.
    """
    with Engine(tiny_llama()).as_loaded():
        installed = getattr(sdpa_attention, GROUPED_QUERIES)
    monkeypatch.setattr(sdpa_attention, GROUPED_QUERIES, installed)
    monkeypatch.setattr(modeling_llama, ROTATION, getattr(modeling_llama, ROTATION))


@pytest.fixture
def engine(monkeypatch) -> Engine:
    """An engine whose layers, tiny as they are, all use the products for few rows."""
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    return Engine(tiny_llama(), tiny_heads())


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_an_engine_says_what_the_model_says(engine, spec, static_shapes, rule):
    assert engine.changes.listed()[FEW_ROWS] == LAYERS
    engine.static_shapes = static_shapes
    with engine.as_loaded():
        expected = steps_of(Model(tiny_llama(), tiny_heads()), spec, 100, rule, GROWING, OWN_TREE)
    steps = steps_of(engine, spec, 100, rule, GROWING, OWN_TREE)
    assert tokens_of(steps) == tokens_of(expected)
    assert [step.nodes for step in steps] == [step.nodes for step in expected]
    assert [step.finish for step in steps] == [step.finish for step in expected]


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_engine_computes_the_rows_of_the_model(monkeypatch, family, static_shapes):
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    draft = Draft(Tree.from_parent([0, 0, 0, 1, 1, 3]), torch.tensor([7, 8, 9, 10, 11, 12]))
    plain, engine = (kind(randomise(FAMILIES[family]()), tiny_heads()) for kind in (Model, Engine))
    engine.static_shapes = static_shapes
    rows = []
    for model in (plain, engine):
        prefilled = model.prefill(torch.cat((PROMPT, PROMPT)), room=9, all_rows=True)
        rows += [prefilled.hidden_states.clone(), prefilled.logits]
        verified = model.verify(draft)
        rows += [verified.hidden_states, verified.logits]
        rows.append(model.draft_logits(verified.hidden_states[:1]))
    for expected, found in zip(rows[:5], rows[5:], strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def snapshot(lm: torch.nn.Module) -> dict[tuple[object, str], object]:
    """Every attribute of every module of a model, and of the modules that it is written in."""
    written_in: list[ModuleType] = [sys.modules[type(lm).__module__], sdpa_attention]
    owners = [*lm.modules(), *written_in]
    return {(owner, name): value for owner in owners for name, value in vars(owner).items()}


def differences(before: dict, after: dict) -> set[str]:
    keys = before.keys() | after.keys()
    return {
        name for owner, name in keys if before.get((owner, name)) is not after.get((owner, name))
    }


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_as_loaded_restores_every_attribute_and_puts_it_back(monkeypatch, fused, fails):
    monkeypatch.setattr(few_rows, "SMALLEST", 1)
    monkeypatch.setattr(torch, "compile", lambda plain, **_: lambda *args, **kw: plain(*args, **kw))
    lm = tiny_llama()
    Model(lm)  # What a plain model does (evaluation mode, hooks) is no change.
    loaded = snapshot(lm)
    with torch.inference_mode():
        expected = lm(input_ids=PROMPT.unsqueeze(0)).logits
    engine = Engine(lm, tiny_heads(), fused=fused)
    changed = snapshot(lm)
    names = {"forward", GROUPED_QUERIES}
    assert differences(loaded, changed) == names | (
        {"_compiled_call_impl", ROTATION} if fused else set()
    )
    try:
        with engine.as_loaded():
            assert not differences(loaded, snapshot(lm))
            with torch.inference_mode():
                assert lm(input_ids=PROMPT.unsqueeze(0)).logits.equal(expected)
            if fails:
                raise RuntimeError("while it is as loaded")
    except RuntimeError:
        assert fails
    assert not differences(changed, snapshot(lm))


def test_the_changes_are_listed(engine):
    assert engine.changes.listed() == {"attention by grouped queries": 1, FEW_ROWS: LAYERS}
    gpt2 = Engine(randomise(FAMILIES["gpt2"]()))
    # GPT-2 has a kind of layer of its own. Only the projection is a plain linear layer.
    assert gpt2.changes.listed()[FEW_ROWS] == 1


def test_every_engine_can_bring_back_what_was_installed():
    """What the engines of one process change in transformers they share."""
    installed = vars(sdpa_attention)[GROUPED_QUERIES]
    engines = [Engine(tiny_llama()) for _ in range(2)]
    for each in (*engines, engines[0]):
        assert vars(sdpa_attention)[GROUPED_QUERIES] is not installed
        with each.as_loaded():
            assert vars(sdpa_attention)[GROUPED_QUERIES] is installed


@pytest.mark.parametrize("spec", ["hf-greedy", "hf-static", "prompt-lookup", "assisted:model=tiny"])
def test_transformers_own_generate_runs_on_the_model_as_it_was_loaded(engine, spec):
    seen = []
    engine.lm.register_forward_pre_hook(
        lambda *_: seen.append("forward" in vars(engine.lm.get_output_embeddings()))
    )
    assert "forward" in vars(engine.lm.get_output_embeddings())
    list(bound(engine, spec).decode(*turn(5, Exact())))
    assert seen and not any(seen)


def test_static_shapes_can_be_switched_between_turns(engine):
    expected = tokens_of(steps_of(engine, "dynamic:nodes=16"))
    decoder = bound(engine, "dynamic:nodes=16")
    for engine.static_shapes in (True, False, True):
        assert tokens_of(list(decoder.decode(*turn(60, Exact())))) == expected


def test_a_model_in_8_bits_is_not_captured(monkeypatch):
    """Its products look at values on the host."""
    asked = []
    monkeypatch.setattr(engine_module, "Graphs", lambda _device, captures: asked.append(captures))
    lm = tiny_llama()
    Engine(lm, tiny_heads())
    lm.is_loaded_in_8bit = True
    Engine(lm, tiny_heads())
    assert asked == [True, False]
