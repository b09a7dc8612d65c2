"""Record the trees of some answers of a finished run, so that its report.html can step through them.

    python scripts/record_trees.py results/<run> --questions 81,82
    python scripts/record_trees.py results/<run> --questions 81 --decoder dynamic

A timed run never records its trees. Here the answers are decoded a second time, untimed, with the same model, prompts and
seeds, and kept only where tokens and steps come out as they are in the run. Writes <run>/trees.jsonl (what it already holds of
other answers stays) and makes the report again.
"""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch
from tqdm import tqdm

from bench.common.errors import UserError, exit_cleanly, warn
from bench.inputs.questions import Question, load_questions
from bench.report import derive
from bench.running.config import RunConfig
from bench.running.runner import Runner
from bench.store.records import Turn, read_run, read_turns
from bench.store.trees import AnswerTrees, StepTree, read_trees, token_texts, write_trees
from decoders.budget import AutoBudget, StepTimes


def reopen(run: dict) -> tuple[Runner, dict[int, Question]]:
    """The runner of a finished run and its questions by id; UserError where they are no longer what they were."""
    config = RunConfig(
        **{f.name: run["config"][f.name] for f in fields(RunConfig)}
        | {"decoders": tuple(run["config"]["decoders"])}
    )
    questions = load_questions(config.questions, config.limit, config.skip)
    if (
        questions.sha256 != run["questions"]["sha256"]
        or config.tree_digests(config.make_decoders()) != run["config"]["trees"]
    ):
        raise UserError(
            "the run's questions or its tree files have changed since; its answers cannot be decoded again"
        )
    runner = Runner.of(config)
    if runner.loaded.identity != run["model"]["identity"]:
        raise UserError(
            f"{config.model!r} is no longer the model of this run; its answers cannot be decoded again"
        )
    for spec, seconds in (
        run["draft_times"] or {}
    ).items():  # the same budgets as then, not those of today's clock
        times = {name: tuple(values) for name, values in run["step_times"].items()}
        runner.decoders[spec].budget = AutoBudget(StepTimes(**times))
        runner.decoders[spec].setup(runner.loaded.model)
        runner.decoders[spec].budget.draft_s = {int(depth): each for depth, each in seconds.items()}
    return runner, {question.question_id: question for question in questions.questions}


def replay(
    runner: Runner, question: Question, turn: Turn, answered: list[str]
) -> AnswerTrees | None:
    """Decode a turn once more; its trees, or None where it does not come out the same."""
    model, decoder = runner.loaded.model, runner.decoders[turn.decoder]
    prompt = runner.chat.prompt(list(question.turns[: turn.turn]), answered)
    rule, stop = runner.rule_and_stop(
        decoder, model.context - len(prompt), turn.temperature, turn.seed
    )
    trees, tokens, lengths, nodes = [], [], [], []
    for step in decoder.decode(torch.tensor(prompt, device=model.device), rule, stop):
        trees.append(StepTree.of(step))
        tokens += step.tokens
        lengths.append(len(step.tokens))
        nodes.append(step.nodes)
    if (tokens, lengths, nodes) != (turn.token_ids, turn.accept_lengths, turn.nodes):
        return None
    return AnswerTrees(*turn.key, trees, token_texts(runner.loaded.tokenizer, trees))


def numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no question ids; expected some such as 81,82"
        ) from None


def _listed(ids: list[int]) -> str:
    """Ascending numbers, those that follow each other as one range.

    >>> _listed([81, 82, 83, 90])
    '81-83, 90'
    """
    ranges: list[list[int]] = []
    for each in ids:
        if ranges and each == ranges[-1][1] + 1:
            ranges[-1][1] = each
        else:
            ranges.append([each, each])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder that bench.run wrote")
    parser.add_argument(
        "--questions", type=numbers, required=True, help="question ids, such as 81,82"
    )
    parser.add_argument(
        "--decoder",
        help="comma-separated, as in the run (default: all of the run that draft trees)",
    )
    args = parser.parse_args()
    run = read_run(args.run)
    turns = {turn.key: turn for turn in read_turns(args.run / "turns.jsonl")[0] if not turn.failed}
    asked = sorted(int(each) for each in run["question_turns"])
    if strange := set(args.questions).difference(asked):
        raise UserError(f"the run does not ask question {min(strange)}; it asks {_listed(asked)}")
    if strange := [
        name
        for name in (args.decoder or "").split(",")
        if name and name not in run["config"]["decoders"]
    ]:
        raise UserError(
            f"the run has no decoder {strange[0]!r}; it has {', '.join(run['config']['decoders'])}"
        )
    recorded = read_trees(args.run)
    runner, questions = reopen(run)
    named = (
        args.decoder.split(",")
        if args.decoder
        else [spec for spec, each in runner.decoders.items() if each.drafts]
    )
    wanted = [
        turn
        for turn in turns.values()
        if turn.question_id in args.questions and turn.decoder in named
    ]
    if not wanted:
        raise UserError(
            "the run has no finished answer of these questions by a decoder that drafts trees"
        )
    different = 0
    for turn in tqdm(wanted, unit="turn", desc="recording"):
        answered = [
            turns[turn.question_id, turn.decoder, turn.choice, before].text
            for before in range(1, turn.turn)
        ]
        try:
            trees = replay(runner, questions[turn.question_id], turn, answered)
        except ValueError as error:
            raise UserError(
                f"decoder {turn.decoder!r}: {error}; name others with --decoder"
            ) from error
        except Exception as error:  # noqa: BLE001 - of somebody's decoder; the other answers are recorded all the same
            warn(f"{turn.decoder!r}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            trees = None
        if trees is None:
            different += 1
            print(
                f"not the same answer: question {turn.question_id}, {turn.decoder}, turn {turn.turn}",
                file=sys.stderr,
            )
        else:
            recorded[turn.key] = trees
    try:
        write_trees(args.run, recorded.values())
    except OSError as error:
        raise UserError(f"{args.run} cannot be written: {error.strerror}") from error
    derive(args.run)
    print(f"{args.run}: trees.jsonl has {len(recorded)} answers, report.html shows them")
    if different:
        print(
            f"error: {different} answers did not come out as in the run (half precision, or nodes=auto with workers); left out",
            file=sys.stderr,
        )
    return 1 if different else 0


if __name__ == "__main__":
    exit_cleanly(main)
