"""Decoding the answers of a finished run a second time, with the trees of every step.

A timed run never records its trees. The same model, prompt and seed give the same answer again.
Budgets follow the clock (`nodes=auto`), so their trees are cut as the run has recorded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields

import torch

from bench.common.errors import UserError
from bench.inputs.questions import Question, load_questions
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.digests import tree_digests
from bench.running.recorded_trees import step_tree, token_texts
from bench.running.runner import Runner
from bench.running.step_times import AutoTimes, auto_times
from bench.store.budget_times import budget_times
from bench.store.question_id import QuestionId
from bench.store.run_record import Run
from bench.store.trees import AnswerTrees, StepTree
from bench.store.turn import Turn
from decoders.budget import LADDER, AutoBudget, Budgeted
from decoders.decoder import Decoder
from decoders.step import Step
from decoders.step_costs import StepTimes
from decoders.tree import Draft

# Stands for times that a run did not record. With them, budgets allow trees of every size.
NO_TIMES = AutoTimes(StepTimes((1,), LADDER, (tuple(1.0 for _ in LADDER),)))


class _AsRecorded(Budgeted):
    """Drafts as deep as a run did, and verifies as many nodes."""

    def __init__(self, inner: Decoder, budget: AutoBudget, turn: Turn) -> None:
        super().__init__(inner, budget)
        self.nodes = iter(turn.nodes)
        self.depths = iter(turn.draft_depths)

    def _plan(self) -> None:
        depth = next(self.depths, 0)
        self.become((depth > 0, depth))

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        self._next_step()
        return draft.truncated(next(self.nodes, 1))


def reopen(run: Run, trust_remote_code: bool = False) -> tuple[Runner, dict[QuestionId, Question]]:
    """The runner of a finished run, and its questions by id.

    trust_remote_code: whether Python files of the run's model may be executed. A run that says so
    of itself may be a stranger's.

    UserError where the run had --trust-remote-code and the argument is False, or where the model,
    the questions or the tree files have changed since.
    """
    recorded = run.config.as_json()
    names = {field.name for field in fields(RunConfig)}
    values = {name: value for name, value in recorded.items() if name in names}
    if values.get("trust_remote_code") and not trust_remote_code:
        raise UserError(
            "the run was made with --trust-remote-code; look at the model's Python files, and if "
            "you trust them, give --trust-remote-code here, too"
        )
    values["trust_remote_code"] = trust_remote_code
    config = RunConfig(**values | {"decoders": tuple(run.config.decoders)})
    decoders = make_decoders(config)
    questions = load_questions(config.questions, config.limit, config.skip)
    if questions.sha256 != run.questions.sha256 or tree_digests(decoders) != recorded.get(
        "trees", {}
    ):
        raise UserError(
            "the run's questions or its tree files have changed since; its answers cannot be "
            "decoded again"
        )
    runner = Runner.load(config, decoders, _times(run), began=run.began)
    now = (runner.loaded.identity, runner.loaded.contents)
    if now != (run.model.identity, run.model.contents or runner.loaded.contents):
        raise UserError(
            f"{config.model!r} is no longer the model of this run; its answers cannot be decoded "
            "again"
        )
    return runner, {question.question_id: question for question in questions.questions}


def _times(run: Run) -> AutoTimes:
    """The times that the run's budgets began with: their largest trees and depths follow."""
    try:
        recorded = budget_times(run)
    except ValueError as error:
        raise UserError(f"the run's step times are damaged: {error}") from error
    return NO_TIMES if recorded is None else auto_times(recorded)


def steps_with_trees(
    runner: Runner,
    decoder: Decoder | Budgeted,
    prompt: list[int],
    temperature: float,
    seed: int,
) -> Iterator[tuple[Step, StepTree]]:
    """The steps of one answer, each with its tree.

    ValueError where the prompt fills the context, or the decoder drafts no trees.
    """
    generator = runner.generator
    room = generator.room_behind(prompt)
    rule, stop = generator.rule_and_stop(decoder, room, temperature, seed)
    ids = torch.tensor(prompt, device=runner.loaded.model.device)
    for step in decoder.decode(ids, rule, stop):
        yield step, step_tree(step)


def replay(
    runner: Runner, question: Question, turn: Turn, answered: list[str]
) -> AnswerTrees | None:
    """The trees of a turn, decoded once more. None: the answer or its steps differ this time.

    None also for nodes=auto in an older run, which did not record how deep it drafted.

    answered: the texts of the turns before. ValueError as `steps_with_trees`.
    """
    prompt = runner.generator.prompt(list(question.turns[: turn.turn]), answered)
    decoder = runner.decoders[turn.decoder]
    if isinstance(decoder, Budgeted):
        if not turn.draft_depths:
            return None
        decoder = _AsRecorded(decoder.inner, decoder.budget, turn)
    trees: list[StepTree] = []
    tokens: list[int] = []
    accept_lengths: list[int] = []
    nodes: list[int] = []
    steps = steps_with_trees(runner, decoder, prompt, turn.temperature, turn.seed)
    for step, tree in steps:
        trees.append(tree)
        tokens += step.tokens
        accept_lengths.append(len(step.tokens))
        nodes.append(step.nodes)
    if (tokens, accept_lengths, nodes) != (turn.token_ids, turn.accept_lengths, turn.nodes):
        return None
    return AnswerTrees(*turn.key, trees, token_texts(runner.loaded.tokenizer, trees))
