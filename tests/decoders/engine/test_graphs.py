"""Captured steps. Where there is no CUDA, a recorder stands in for its graphs."""

import pytest
import torch

from decoders.accept import Exact, Sample, Threshold
from decoders.acceptance import Typical
from decoders.engine.engine import Engine
from decoders.engine.graphs import Graphs
from decoders.engine.rehearsal import rehearse
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.recorder import Recorder
from tests.helpers.steps import FREE, GROWING, OWN_TREE, bound, steps_of, tokens_of, turn

SPECS = (
    "greedy",
    "static",
    "dynamic:nodes=16",
    "dynamic:nodes=auto",
    "conditional:nodes=16",
    "conditional:nodes=auto",
    "recycling:nodes=16",
    "hydra:nodes=16",
    "eagle:nodes=16:depth=3",
    "eagle:nodes=auto:depth=3",
)


def fresh(family: str = "llama", captures: bool = True) -> Engine:
    model = Engine(randomise(FAMILIES[family]()), tiny_heads())
    model.static_shapes = model.graphs.captures = captures
    return model


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
@pytest.mark.parametrize("family", ["llama", "gemma3-window", "gpt2"])
def test_captured_steps_give_the_same_tokens(captured, family, rule):
    """In a second turn, too, which begins with what is captured already; across buckets."""
    plain, model = fresh(family, captures=False), fresh(family)
    for spec in SPECS:
        expected = steps_of(plain, spec, 140, rule, GROWING, OWN_TREE)
        decoder = bound(model, spec, GROWING, OWN_TREE)
        for _ in range(2):
            steps = list(decoder.decode(*turn(140, rule)))
            assert tokens_of(steps) == tokens_of(expected), spec
            assert [step.nodes for step in steps] == [step.nodes for step in expected], spec
    assert len(model.graphs) > 0


@pytest.mark.parametrize("spec", ["dynamic:nodes=16", "conditional:nodes=16", "eagle:nodes=16"])
def test_a_captured_step_has_the_probabilities_of_its_own_draft(captured, spec):
    """They are read after the next draft has been proposed."""

    def log_probs(model: Engine) -> list[torch.Tensor]:
        decoding = bound(model, spec).decode(*turn(40, Exact()))
        return [step.draft.log_prob.clone() for step in decoding]

    for ours, expected in zip(log_probs(fresh()), log_probs(fresh(captures=False)), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=0)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "auto" not in spec])
def test_nothing_of_a_step_is_launched_one_by_one_where_all_of_it_is_captured(
    captured, monkeypatch, spec
):
    """Only the placing of the draft is left, and the transfer."""
    model = fresh()
    decoder = bound(model, spec, files=OWN_TREE)
    list(decoder.decode(*turn(40, Exact())))
    decoding = decoder.decode(*turn(40, Exact()))
    next(decoding)  # Its draft was proposed before the first step.
    monkeypatch.setattr(Recorder, "replay", lambda self: None)
    with Recorder() as left:
        next(decoding)
    names = [function.overloadpacket.__name__ for function, *_ in left.calls]
    assert names.count("cat") == names.count("fill_") == 1
    launched = {"mm", "bmm", "topk", "take", "index_select", "index_copy_", "max"} & set(names)
    assert not launched, names


def test_what_is_met_once_is_not_captured_and_what_fails_is_run_as_it_is(monkeypatch):
    graphs, ran = Graphs(torch.device("cpu")), []
    graphs.captures = True

    def fail(operations):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "_capture", fail)
    assert graphs.run("one", lambda: ran.append(1) or 1) == 1
    with pytest.warns(UserWarning, match="not permitted"):
        assert graphs.run("one", lambda: ran.append(2) or 2) == 2
    assert graphs.run("one", lambda: ran.append(3) or 3) == 3
    assert ran == [1, 2, 3] and len(graphs) == 0


def test_new_buffers_and_a_new_setup_are_captured_anew(captured):
    model = fresh()
    first = bound(model, "dynamic:nodes=16")
    expected = tokens_of(list(first.decode(*turn(60, Exact()))))
    held = len(model.graphs)
    model.release()
    assert len(model.graphs) == 0 < held
    assert tokens_of(list(first.decode(*turn(60, Exact())))) == expected
    again = bound(model, "dynamic:nodes=16")
    assert tokens_of(list(again.decode(*turn(60, Exact())))) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
def test_cuda_graphs_give_the_same_tokens(rule):
    model = Engine(tiny_llama().cuda(), tiny_heads())
    for spec in (
        "greedy",
        "static",
        "dynamic:nodes=16",
        "conditional:nodes=16",
        "dynamic:nodes=auto",
    ):
        model.static_shapes = False
        expected = tokens_of(steps_of(model, spec, 120, rule))
        model.static_shapes = True
        decoder = bound(model, spec, FREE)
        rehearse(model, decoder, rule, len(PROMPT) + 120)
        held = len(model.graphs)
        for _ in range(2):
            assert tokens_of(list(decoder.decode(*turn(120, rule)))) == expected, spec
        assert len(model.graphs) == held > 0, spec
        assert model.graphs.captures and len(model.graphs) > 0
