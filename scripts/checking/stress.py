"""Decoders with budgets beside other work: their speed over greedy's under the same load."""

import statistics
import sys
from collections.abc import Iterator

from rich import box
from rich.table import Table
from tqdm import tqdm

from bench.common.errors import UserError
from bench.inputs.chat import Chat
from bench.inputs.loader import load as load_model
from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.environment import environment, git_state
from bench.running.jobs import jobs
from bench.running.runner import Runner
from bench.store.turn import Turn
from checking.load import busy, schedule
from decoders.spec import BASELINE
from settings.checking import StressSettings

SCHEMA_VERSION = 1


def stress(settings: StressSettings, command: list[str]) -> Iterator[dict[str, object]]:
    """The report of all numbers so far, as JSON data, after each load.

    command: what the report records as the command line. UserError says what does not fit.
    """
    config = RunConfig(
        decoders=(BASELINE, *settings.decoder),
        model=settings.model,
        questions=settings.questions,
        temperature=0.0,
        max_new_tokens=settings.max_new_tokens,
        limit=settings.limit,
        device=settings.device,
        dtype=settings.dtype,
    )
    config.check()
    questions = load_questions(config.questions, config.limit, config.skip).questions
    make_decoders(config)  # A wrong name is told before the model is loaded.
    loaded = load_model(config.model, config.device, config.dtype)
    chat = Chat.of(loaded.tokenizer, config.template)
    rows = []
    for name in settings.load:
        with busy(schedule(name, settings.seconds), settings.loops):
            runner = Runner(config, loaded, chat, make_decoders(config))
            runner.warm_up(questions)
            wanted = list(jobs(config, questions))
            answered = tqdm(wanted, desc=f"busy: {name}", unit="answer", file=sys.stderr)
            turns = [turn for job in answered for turn in runner.turns_of(job)]
        spread = runner.times.spread if runner.times else None
        rows += [
            {"load": name, "decoder": label, "spread": spread} | compared(turns, label)
            for label in config.labels
            if label != BASELINE
        ]
        yield {
            "schema_version": SCHEMA_VERSION,
            "command": command,
            "git": git_state(),
            "environment": environment(loaded.model.device, loaded.model.dtype),
            "loops": settings.loops,
            "rows": rows,
        }


def compared(turns: list[Turn], label: str) -> dict[str, object]:
    """A decoder's speed over greedy's, and how many of its answers are greedy's.

    UserError where a turn failed.
    """
    by_key = {turn.key: turn for turn in turns}
    if failed := next((turn for turn in turns if turn.failed), None):
        raise UserError(f"{failed.decoder!r}, question {failed.question_id}: {failed.error}")
    pairs = [
        (turn, by_key[turn.question_id, BASELINE, turn.choice, turn.turn])
        for turn in turns
        if turn.decoder == label
    ]
    ratios = [speed(ours) / speed(greedys) for ours, greedys in pairs]
    ours, greedys = (sum(pair[side].decode_s for pair in pairs) for side in (0, 1))
    return {
        "turns": len(pairs),
        "ratio": statistics.median(ratios),
        "later_ratio": statistics.median(ratios[len(ratios) // 2 :]),
        "time_ratio": greedys / ours,
        "equal": sum(ours.token_ids == greedys.token_ids for ours, greedys in pairs),
    }


def speed(turn: Turn) -> float:
    """Tokens per second, without the prefill."""
    return len(turn.token_ids) / turn.decode_s


def faults(rows: list[dict], least: float) -> list[str]:
    """What is not as it should be: a median below `least`, an answer that is not greedy's."""
    found = []
    for row in rows:
        where = f"{row['decoder']}, busy: {row['load']}"
        for name, turns in (("ratio", "all turns"), ("later_ratio", "the later half of them")):
            if row[name] < least:
                found.append(
                    f"{where}: {row[name]:.2f} of greedy's speed over {turns}, expected {least} or "
                    "more"
                )
        if row["equal"] < row["turns"]:
            found.append(f"{where}: {row['turns'] - row['equal']} answers are not greedy's")
    return found


def table(rows: list[dict]) -> Table:
    """A line for each load and decoder."""
    out = Table(box=box.SIMPLE_HEAD, caption_justify="left")
    out.add_column("busy", no_wrap=True)
    out.add_column("decoder", no_wrap=True)
    for name in ("spread", "median", "later half", "whole time", "equal"):
        out.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        spread = ", ".join(f"{100 * each:.0f} %" for each in row["spread"] or ())
        ratios = (f"{row[name]:.2f}" for name in ("ratio", "later_ratio", "time_ratio"))
        equal = f"{row['equal']} of {row['turns']}"
        out.add_row(row["load"], row["decoder"], spread, *ratios, equal)
    return out
