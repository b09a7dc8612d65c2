"""A loaded model that answers questions. A recorder stands in for CUDA graphs."""

import json

import torch

from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from bench.running.jobs import jobs
from bench.running.runner import Runner
from bench.running.session import run
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import QUESTIONS


def write_questions(path, questions) -> str:
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return str(path)


def capturing(config: RunConfig) -> Runner:
    runner = Runner.load(config)
    runner.loaded.model.graphs.captures = True
    return runner


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
        patched.setattr(Runner, "_generate", no_memory)
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
