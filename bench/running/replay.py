"""Decoding the answers of a finished run a second time, with the trees of every step.

A timed run never records its trees. The same model, prompt and seed give the same answer again.
"""

from collections.abc import Iterator
from dataclasses import fields

import torch

from bench.common.errors import UserError
from bench.inputs.questions import Question, load_questions
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.digests import tree_digests
from bench.running.recorded_trees import step_tree, token_texts
from bench.running.runner import Runner
from bench.store.run_record import Run
from bench.store.trees import AnswerTrees, StepTree
from bench.store.turn import Turn
from decoders.budget import StepTimes
from decoders.step import Step


def reopen(run: Run) -> tuple[Runner, dict[int, Question]]:
    """The runner of a finished run, and its questions by id.

    Decoders with nodes=auto get the times that the run measured; nothing is measured again.
    UserError where the model, the questions or the tree files have changed since.
    """
    settled = run.config.as_json()
    names = {field.name for field in fields(RunConfig)}
    values = {name: value for name, value in settled.items() if name in names}
    config = RunConfig(**values | {"decoders": tuple(run.config.decoders)})
    decoders = make_decoders(config)
    questions = load_questions(config.questions, config.limit, config.skip)
    if questions.sha256 != run.questions.sha256 or tree_digests(decoders) != settled.get(
        "trees", {}
    ):
        raise UserError(
            "the run's questions or its tree files have changed since; its answers cannot be "
            "decoded again"
        )
    runner = Runner.load(config, decoders, *_times(run))
    if runner.loaded.identity != run.model.identity:
        raise UserError(
            f"{config.model!r} is no longer the model of this run; its answers cannot be decoded "
            "again"
        )
    return runner, {question.question_id: question for question in questions.questions}


def _times(run: Run) -> tuple[StepTimes | None, dict[str, dict[int, float]]]:
    """The step times of a run, and the draft times of its decoders: spec -> depth -> seconds.

    None: the run has not recorded them, as with workers.
    """
    times = None
    if run.step_times is not None:
        times = StepTimes(**{name: tuple(values) for name, values in run.step_times.items()})
    draft_s = {
        text: {int(depth): seconds for depth, seconds in by_depth.items()}
        for text, by_depth in (run.draft_times or {}).items()
    }
    return times, draft_s


def steps_with_trees(
    runner: Runner, spec: str, prompt: list[int], temperature: float, seed: int
) -> Iterator[tuple[Step, StepTree]]:
    """The steps of one answer, each with its tree.

    ValueError where the prompt fills the context, or the decoder drafts no trees.
    """
    model, decoder = runner.loaded.model, runner.decoders[spec]
    room = model.context - len(prompt)
    if room < 1:
        raise ValueError(
            f"the prompt has {len(prompt)} tokens, but the model's context is {model.context}"
        )
    rule, stop = runner.rule_and_stop(decoder, room, temperature, seed)
    for step in decoder.decode(torch.tensor(prompt, device=model.device), rule, stop):
        yield step, step_tree(step)


def replay(
    runner: Runner, question: Question, turn: Turn, answered: list[str]
) -> AnswerTrees | None:
    """The trees of a turn, decoded once more. None: the answer or its steps differ this time.

    answered: the texts of the turns before. ValueError as `steps_with_trees`.
    """
    prompt = runner.chat.prompt(list(question.turns[: turn.turn]), answered)
    trees: list[StepTree] = []
    tokens: list[int] = []
    accept_lengths: list[int] = []
    nodes: list[int] = []
    steps = steps_with_trees(runner, turn.decoder, prompt, turn.temperature, turn.seed)
    for step, tree in steps:
        trees.append(tree)
        tokens += step.tokens
        accept_lengths.append(len(step.tokens))
        nodes.append(step.nodes)
    if (tokens, accept_lengths, nodes) != (turn.token_ids, turn.accept_lengths, turn.nodes):
        return None
    return AnswerTrees(*turn.key, trees, token_texts(runner.loaded.tokenizer, trees))
