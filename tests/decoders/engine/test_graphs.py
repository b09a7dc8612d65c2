"""Captured steps. Where there is no CUDA, a recorder stands in for its graphs: it runs the very operations again, on the very
tensors and with the very numbers of when it recorded, which is what a graph does."""

import json

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from bench.running.runner import Runner, jobs
from decoders.accept import Exact, Sample, Threshold, Typical
from decoders.engine.graphs import Graphs
from decoders.loop import rehearse
from decoders.model.model import Model
from decoders.tree import RankTree
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import QUESTIONS
from tests.helpers.models import FAMILIES, PROMPT, randomise, tiny_heads, tiny_llama
from tests.helpers.steps import FREE, bound, steps_of, tokens_of, turn

SPECS = (
    "greedy",
    "static",
    "dynamic:nodes=16",
    "dynamic:nodes=auto",
    "conditional:nodes=16",
    "conditional:nodes=auto",
)


class Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []
        self.ran = True  # recording runs them as well, where capturing does not

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    @torch.inference_mode()
    def replay(self):
        if self.ran:
            self.ran = False
            return
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if (
                    isinstance(old, torch.Tensor)
                    and old.layout == torch.strided
                    and old.data_ptr() != new.data_ptr()
                ):
                    old.copy_(new)


def recorded(operations):
    recorder = Recorder()
    with recorder:
        result = operations()
    return recorder, result


def fresh(family="llama", captures=True):
    model = Model(randomise(FAMILIES[family]()), tiny_heads())
    model.static_tree = RankTree([(0,), (0, 0), (1,), (2,), (0, 1)], [0.5, 0.3, 0.2, 0.1, 0.05])
    model.static_shapes = captures
    model.graphs.captures = captures
    return model


@pytest.fixture
def captured(monkeypatch):
    monkeypatch.setattr(Graphs, "_capture", lambda self, operations: recorded(operations))


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
@pytest.mark.parametrize("family", ["llama", "gemma3-window", "gpt2"])
def test_captured_steps_give_the_same_tokens(captured, family, rule):
    """In a second turn, too, which begins with what is captured already; across buckets."""
    plain, model = fresh(family, captures=False), fresh(family)
    for spec in SPECS:
        growth = tuple(1 + 0.01 * size for size in range(12))
        expected = [step.nodes for step in steps_of(plain, spec, 140, rule, growth)]
        tokens = tokens_of(steps_of(plain, spec, 140, rule, growth))
        decoder = bound(model, spec, growth)
        for _ in range(2):
            steps = list(decoder.decode(*turn(140, rule)))
            assert tokens_of(steps) == tokens, spec
            assert [step.nodes for step in steps] == expected, spec
    assert len(model.graphs) > 0


@pytest.mark.parametrize("spec", ["greedy", "static", "dynamic:nodes=16", "conditional:nodes=16"])
def test_nothing_of_a_step_is_launched_one_by_one_where_all_of_it_is_captured(
    captured, monkeypatch, spec
):
    """Only the placing of the draft is left, and the transfer."""
    model = fresh()
    decoder = bound(model, spec)
    list(decoder.decode(*turn(40, Exact())))
    decoding = decoder.decode(*turn(40, Exact()))
    next(decoding)  # its draft was proposed before the first step
    monkeypatch.setattr(Recorder, "replay", lambda self: None)
    with Recorder() as left:
        next(decoding)
    names = [function.overloadpacket.__name__ for function, *_ in left.calls]
    assert names.count("cat") == names.count("fill_") == 1
    assert not {"mm", "bmm", "topk", "take", "index_select", "index_copy_", "max"} & set(names), (
        names
    )


@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3), Threshold(0.8, Typical())])
@pytest.mark.parametrize("spec", SPECS)
def test_after_a_rehearsal_nothing_is_left_to_capture(captured, spec, rule):
    growth = tuple(
        1 + 0.01 * size for size in range(12)
    )  # with pauses and several sizes, where there is a choice
    expected = tokens_of(steps_of(fresh(captures=False), spec, 140, rule, growth))
    model = fresh()
    decoder = bound(model, spec, growth)
    rehearse(model, decoder, rule, len(PROMPT) + 140)
    there = dict(model.graphs._captured)
    assert tokens_of(list(decoder.decode(*turn(140, rule)))) == expected
    assert model.graphs._captured == there and model.graphs._met == there.keys()


def test_a_rehearsal_reaches_every_width(captured):
    model = Model(tiny_llama(max_position_embeddings=2048), tiny_heads())
    decoder = bound(model, "dynamic:nodes=16")
    model.static_shapes = model.graphs.captures = True
    rehearse(model, decoder, Exact(), 700)
    assert sorted(key[-1][-1] for key in model.graphs._captured if key[0] == "verify") == [
        256,
        384,
        512,
        768,
    ]


def test_what_a_rehearsal_made_up_is_not_read_later(captured):
    """A static step reads all of a width, and no mask hides NaN."""
    model = fresh()
    expected = tokens_of(steps_of(fresh(captures=False), "greedy", 60))
    assert 0 not in PROMPT and 0 not in expected
    model.lm.get_input_embeddings().weight.data[0] = (
        torch.nan
    )  # of the token that is rehearsed with
    decoder = bound(model, "greedy")
    rehearse(model, decoder, Exact(), 100)
    assert tokens_of(list(decoder.decode(*turn(60, Exact())))) == expected


def test_where_capturing_stops_nothing_captured_is_held(monkeypatch):
    model, captures = fresh(), []

    def capture(self, operations):
        captures.append(1)
        if len(captures) == 3:
            raise RuntimeError("out of memory")
        return recorded(operations)

    monkeypatch.setattr(Graphs, "_capture", capture)
    with pytest.warns(UserWarning, match="out of memory"):
        rehearse(model, bound(model, "dynamic:nodes=auto", (1.0,) * 12), Exact(), 300)
    assert len(model.graphs) == 0 and len(captures) == 3


def test_a_run_captures_nothing_while_it_is_timed(captured, tmp_path):
    """Several decoders, of which the later one needs the longer cache; several turns; and one that fails in between."""
    write_merged(tmp_path / "model", max_position_embeddings=240)
    asked = [
        *QUESTIONS[:2],
        {"question_id": 3, "category": "math", "turns": ["long " * 300]},
        *QUESTIONS[2:],
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    config = RunConfig(
        decoders=("greedy", "dynamic:nodes=64"), model=str(tmp_path / "model"), questions=str(tmp_path / "q.jsonl"),
        max_new_tokens=120, acceptance="typical", device="cpu", static_shapes=True,
    )  # fmt: skip
    runner = Runner.of(config)
    model = runner.loaded.model
    model.graphs.captures = True
    questions = load_questions(config.questions).questions
    runner.warm_up(questions)
    there = dict(model.graphs._captured)
    turns = list(runner.answers(jobs(config, questions), lambda: False))
    assert [turn.question_id for turn in turns if turn.failed] == [3, 3] and len(turns) == 12
    assert {turn.temperature for turn in turns} == {0.0, 0.1, 0.7}
    assert model.graphs._captured == there and model.graphs._met == there.keys()


def test_after_a_turn_without_memory_all_is_captured_again(
    captured, tmp_path, questions, monkeypatch
):
    config = RunConfig(
        decoders=("dynamic",), model=str(write_merged(tmp_path / "model")), questions=questions, max_new_tokens=20,
        device="cpu", static_shapes=True,
    )  # fmt: skip
    runner = Runner.of(config)
    graphs = runner.loaded.model.graphs
    graphs.captures = True
    asked = load_questions(questions).questions
    runner.warm_up(asked)
    keys = set(graphs._captured)
    assert keys
    with monkeypatch.context() as patched:
        patched.setattr(
            Runner,
            "_generate",
            lambda *about: (_ for _ in ()).throw(torch.OutOfMemoryError("full")),
        )
        assert next(runner.answers(jobs(config, asked), lambda: False)).failed
    assert set(graphs._captured) == keys
    turns = list(runner.answers(jobs(config, asked), lambda: False))
    assert set(graphs._captured) == keys and not any(turn.failed for turn in turns)


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
    model = Model(tiny_llama().cuda(), tiny_heads())
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
