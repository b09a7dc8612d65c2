"""A loaded model that answers questions. A recorder stands in for CUDA graphs."""

import json
import math
import re
from dataclasses import asdict, replace

import pytest
import torch

from bench.common.files import json_line
from bench.inputs.chat import Chat
from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from bench.running.jobs import jobs
from bench.running.runner import Runner
from bench.running.session import run
from bench.running.turn_generator import TurnGenerator
from bench.store.turn import parse_turn
from decoders.accept import make_rule
from decoders.step import NotANumber, Step
from decoders.tree import NO_GUESS
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import QUESTIONS


def write_questions(path, questions) -> str:
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return str(path)


def capturing(config: RunConfig) -> Runner:
    runner = Runner.load(config)
    runner.loaded.model.graphs.captures = True
    return runner


def test_a_turn_that_fills_the_context_says_so(model, questions):
    config = RunConfig(("greedy", "dynamic"), model, questions, device="cpu", temperature=0.0)
    runner = Runner.load(config)
    runner.generator.loaded = replace(runner.loaded, eos=frozenset())
    for job in jobs(config, load_questions(questions).questions):
        turn = runner.answer(job, 1, [])
        assert turn.finish_reason == "context"
        assert turn.prompt_tokens + len(turn.token_ids) == runner.loaded.model.context


@pytest.mark.parametrize("temperature", [0.0, 0.1, 0.7])
def test_a_gap_is_the_change_of_a_logit_that_makes_a_tie(model, questions, temperature):
    """Above temperature 0 it was one of scores, which grow with 1 / temperature."""
    config = RunConfig(decoders=("greedy",), model=model, questions=questions, device="cpu")
    runner, text = Runner.load(config), [1, 5, 6, 7]
    (first, second), gap = runner.generator.gap(text, temperature, seed=3)
    rule = make_rule("lossless", temperature, 3, 1.0, config.typical)
    with torch.inference_mode():
        logits = runner.loaded.model.prefill(torch.tensor(text), room=0).logits[-1:].clone()
        logits[0, second] += gap
        scores = rule.scores(logits, len(text))[0].tolist()
    assert scores[first] == pytest.approx(scores[second], abs=1e-3) and gap > 0


def test_with_top_p_a_gap_is_not_known(model, questions):
    """Rounding may move a token over the border of the nucleus."""
    config = RunConfig(
        decoders=("greedy",), model=model, questions=questions, device="cpu", top_p=0.9
    )
    assert math.isinf(Runner.load(config).generator.gap([1, 5, 6, 7], 0.7, seed=3)[1])


def test_what_the_warm_up_taught_is_forgotten(model, questions):
    config = RunConfig(
        decoders=("recycling:keep=true",), model=model, questions=questions, device="cpu"
    )
    runner = Runner.load(config)
    runner.warm_up(load_questions(questions).questions)
    assert (runner.decoders["recycling:keep=true"].matrix == NO_GUESS).all()


def test_decoders_are_told_how_long_turns_may_be(model, questions):
    config = RunConfig(
        decoders=("hf-static",), model=model, questions=questions, device="cpu", max_new_tokens=9
    )
    runner = Runner.load(config)
    asked = load_questions(questions).questions
    runner.warm_up(asked)
    turns = list(runner.answers(jobs(config, asked), lambda: False))
    longest = max(turn.prompt_tokens + len(turn.token_ids) for turn in turns)
    assert longest <= runner.decoders["hf-static"].capacity <= longest + 200


def test_a_run_captures_nothing_while_it_is_timed(captured, tmp_path):
    """Several decoders, of which the later one needs the longer cache; several turns.

    One of the questions fails in between.
    """
    write_merged(tmp_path / "model", max_position_embeddings=240)
    too_long = {"question_id": 3, "category": "math", "turns": ["long " * 300]}
    asked = write_questions(tmp_path / "q.jsonl", [*QUESTIONS[:2], too_long, *QUESTIONS[2:]])
    config = RunConfig(
        decoders=("greedy", "dynamic:nodes=64"),
        model=str(tmp_path / "model"),
        questions=asked,
        max_new_tokens=120,
        acceptance="typical",
        device="cpu",
        static_shapes=True,
    )
    runner = capturing(config)
    graphs = runner.loaded.model.graphs
    questions = load_questions(config.questions).questions
    runner.warm_up(questions)
    there = dict(graphs._captured)
    assert there
    turns = list(runner.answers(jobs(config, questions), lambda: False))
    assert [turn.question_id for turn in turns if turn.failed] == [3, 3] and len(turns) == 12
    assert {turn.temperature for turn in turns} == {0.0, 0.1, 0.7}
    assert graphs._captured == there and graphs._met == there.keys()


def test_after_a_turn_without_memory_all_is_captured_again(
    captured, tmp_path, questions, monkeypatch
):
    config = RunConfig(
        decoders=("dynamic",),
        model=str(write_merged(tmp_path / "model")),
        questions=questions,
        max_new_tokens=20,
        device="cpu",
        static_shapes=True,
    )
    runner = capturing(config)
    graphs = runner.loaded.model.graphs
    asked = load_questions(questions).questions
    runner.warm_up(asked)
    keys = set(graphs._captured)
    assert keys

    def no_memory(*about):
        raise torch.OutOfMemoryError("full")

    with monkeypatch.context() as patched:
        patched.setattr(TurnGenerator, "generate", no_memory)
        assert next(runner.answers(jobs(config, asked), lambda: False)).failed
    assert set(graphs._captured) == keys
    turns = list(runner.answers(jobs(config, asked), lambda: False))
    assert set(graphs._captured) == keys and not any(turn.failed for turn in turns)


def test_the_order_of_questions_changes_nothing(tmp_path):
    """Not even for a decoder that learns from what was said."""
    write_merged(tmp_path / "model")
    questions = [
        {"question_id": number, "category": "math", "turns": [text, "more"]}
        for number, text in enumerate(("abc", "b c d", "xyz"))
    ]
    answers = []
    for name, asked in (("a", questions), ("b", questions[::-1])):
        config = RunConfig(
            decoders=("conditional:nodes=16",),
            model=str(tmp_path / "model"),
            questions=write_questions(tmp_path / f"{name}.jsonl", asked),
            max_new_tokens=20,
            device="cpu",
        )
        folder = run(config, tmp_path / name, ["test"])
        turns = [folder.turn(key) for key in sorted(folder)]
        answers.append([(turn.key, turn.token_ids, turn.accept_lengths) for turn in turns])
    assert answers[0] == answers[1] and len(answers[0]) == 6


@pytest.mark.parametrize(
    ("error", "frees"),
    [(ValueError, False), (NotANumber, False), (RuntimeError, True), (SystemExit, True)],
)
def test_a_failed_turn_leaves_nothing_in_the_cache(model, questions, error, frees):
    """A NaN in a slot would spoil later steps of static shapes: a mask does not hide it."""
    runner = Runner.load(RunConfig(("greedy", "dynamic"), model, questions, device="cpu"))
    loaded, asked = runner.loaded.model, load_questions(questions).questions
    [job, *_] = jobs(runner.config, asked)
    expected = runner.answer(job, 1, []).token_ids

    @torch.inference_mode()
    def spoil(*about):
        for buffer in loaded.cache._buffers:
            buffer.fill_(torch.nan)
        raise error(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TurnGenerator, "generate", spoil)
        assert runner.answer(job, 1, []).failed
    assert loaded.length == 0 and (not loaded.cache._buffers) == frees
    assert all(buffer.isfinite().all() for buffer in loaded.cache._buffers)
    assert runner.answer(job, 1, []).token_ids == expected


@pytest.mark.parametrize(
    ("tokens", "nodes", "says"),
    [
        ([], 4, r"accept_lengths\[0\] is 0"),
        ([5], 0, r"nodes\[0\] is 0"),
        ([5.5], 4, r"token_ids\[0\] is 5.5"),
        ([1 << 63], 4, r"token_ids\[0\] is 9223372036854775808"),
    ],
)
def test_steps_that_are_none_are_a_failed_turn_and_can_be_read_again(
    model, questions, tokens, nodes, says
):
    """A decoder may have a `decode` of its own."""
    runner = Runner.load(RunConfig(("greedy",), model, questions, device="cpu"))
    [job, *_] = jobs(runner.config, load_questions(questions).questions)
    runner.decoders["greedy"].decode = lambda *_: iter([Step(tokens, nodes, "eos")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chat, "text", lambda *_: "")
        patch.setattr(Chat, "step_ends", lambda *_: [0])
        turn = runner.answer(job, 1, [])
    assert turn.failed and re.search(says, turn.error)
    assert parse_turn(json_line(asdict(turn)).encode()) == turn


def test_a_special_token_inside_an_answer_is_said_once(model, questions, capsys):
    runner = Runner.load(RunConfig(("greedy",), model, questions, device="cpu"))
    runner.decoders["greedy"].decode = lambda *_: iter([Step([5, 1, 6, 2], 4, "eos")])
    for job in jobs(runner.config, load_questions(questions).questions):
        assert runner.answer(job, 1, []).text == '"#'
    told = capsys.readouterr().err
    assert told.count("special token '<s>' before its end") == 1 and "question 1 " in told


def test_what_changes_the_questions_is_said_before_the_first_answer(tmp_path, capsys):
    write_merged(tmp_path / "model")
    texts = ["plain", "What does </s> mean?"]
    rows = [{"question_id": n, "category": "math", "turns": [text]} for n, text in enumerate(texts)]
    config = RunConfig(
        decoders=("greedy",),
        model=str(tmp_path / "model"),
        questions=write_questions(tmp_path / "q.jsonl", rows),
        max_new_tokens=4,
        device="cpu",
    )
    folder = run(config, tmp_path / "out", [])
    what = "special token in 1 of the questions' texts, '</s>' (the first is of question 1)"
    assert capsys.readouterr().err.count(what) == 1
    assert any(what in warning for warning in folder.run.sessions[0].warnings)


def test_a_model_whose_answers_have_no_end_is_said(tmp_path):
    folder = write_merged(tmp_path / "model", eos_token_id=None)
    (folder / "generation_config.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    runner = Runner.load(RunConfig(model=str(folder), device="cpu"))
    assert "every answer runs to --max-new-tokens" in runner.warnings[-1]
