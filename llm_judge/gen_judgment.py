"""Have a judge grade answers, or compare them in pairs, as MT-Bench does.

    python -m llm_judge.gen_judgment --dry-run                                how many calls it would take
    OPENAI_API_KEY=... python -m llm_judge.gen_judgment --judge-model gpt-4 --parallel 8
    python -m llm_judge.gen_judgment --mode pairwise-baseline --baseline-model vicuna-7b-greedy
    python -m llm_judge.gen_judgment --api-base http://localhost:8000/v1 --judge-model my-judge --bench-name sample

Reads <data>/<bench>/model_answer/ and writes <data>/<bench>/model_judgment/<judge>_single.jsonl or _pair.jsonl (see
llm_judge/layout.py), in FastChat's formats. Any OpenAI-compatible endpoint will do; its key is read from $OPENAI_API_KEY.

Every judgment is on disk when it arrives, and the same command asks only for what is missing. A call that fails is tried
again with growing pauses, or after what the server asks for; one that fails for good is no score, and makes the command end
with status 1. A reply without a readable grade is recorded with score -1 (or the winner "error"), which is in no average.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # run as a script, from wherever: the packages lie one folder up
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from bench.common.arguments import positive
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import sole_writer
from bench.common.signals import Stopped
from bench.inputs.questions import Question
from bench.store.answer_files import Answer, read_answers
from llm_judge.judge_folder import Bench, add_data_flags
from llm_judge.judging import (
    NEED_REFERENCE,
    PAIRWISE,
    SINGLE,
    Match,
    has_verdict,
    make_matches,
    read_prompts,
)
from llm_judge.judgments import Ledger

if TYPE_CHECKING:  # openai is an extra, and a dry run does without it
    from llm_judge.client import JudgeClient

MODES = ("single", "pairwise-baseline", "pairwise-all")
GIVE_UP_AFTER = 8  # calls that the endpoint did not answer in all their tries, with none that succeeded between them


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add_data_flags(made)
    add("--mode", choices=MODES, default="single", help="default: single")
    add("--judge-model", default="gpt-4", help="a model of the endpoint (default: gpt-4)")
    add(
        "--model-list",
        nargs="+",
        metavar="MODEL",
        help="models to judge (default: all that have an answer file)",
    )
    add(
        "--baseline-model",
        default="gpt-3.5-turbo",
        help="with pairwise-baseline (default: gpt-3.5-turbo)",
    )
    add("--parallel", type=int, default=1, help="calls at once (default: 1)")
    add("--first-n", type=int, help="only the first so many questions")
    add(
        "--judge-file",
        type=Path,
        help="judge prompts (default: the published ones to a published bench, else our own)",
    )
    add(
        "--reference-file",
        type=Path,
        help="default: reference_answer/<judge>.jsonl, or the only file there",
    )
    add(
        "--api-base",
        help="URL of the endpoint, up to and with /v1 (default: $OPENAI_BASE_URL, or OpenAI's)",
    )
    add(
        "--temperature",
        default="0",
        help="of the judge (default: 0); none: leave it to the endpoint",
    )
    length = made.add_mutually_exclusive_group()
    length.add_argument("--max-tokens", type=int, default=2048, help="of a reply (default: 2048)")
    length.add_argument(
        "--max-completion-tokens", type=int, help="the same for models that take it under this name"
    )
    add("--timeout", type=positive, default=120, help="seconds to wait for a reply (default: 120)")
    add(
        "--tries",
        type=int,
        default=8,
        help="tries of a call before it counts as failed (default: 8)",
    )
    add(
        "--backoff",
        type=positive,
        default=1,
        help="seconds before the first retry at most; then doubling (default: 1)",
    )
    add("--dry-run", action="store_true", help="say how many calls would be made, and make none")
    return made


def main() -> int:
    args = parser().parse_args()
    for name, least in (
        ("parallel", 1),
        ("first_n", 1),
        ("tries", 1),
        ("max_tokens", 1),
        ("max_completion_tokens", 1),
    ):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} is {value}; expected at least {least}")
    bench = Bench.of(args.bench_name, args.data_dir)
    bench.questions()
    path = bench.judgments(args.judge_model, "single" if args.mode == "single" else "pair")
    if args.dry_run:
        return _judge(bench, path, args)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be made: {error.strerror}; give another --data-dir"
        ) from error
    with sole_writer(path):
        return _judge(bench, path, args)


def _judge(bench: Bench, path: Path, args: argparse.Namespace) -> int:
    ledger = _ledger(bench, path, args)
    calls = ledger.missing()
    there = len(ledger.rows())
    characters = sum(len(match.system) + len(match.users[index]) for match, index in calls)
    print(
        f"{bench.name}, {args.mode}, judge {args.judge_model}: {len(ledger.matches)} judgments, {there} there already; "
        f"{len(calls)} calls to make"
        + (f", about {max(1, characters // 4000)},000 tokens of prompts" if calls else "")
    )
    if args.dry_run:
        return 0
    client = _client(args) if calls else None
    ledger.begin()
    failed = judge_all(client, ledger, calls, args.parallel) if client else Counter()
    return _report(ledger, failed)


def _ledger(bench: Bench, path: Path, args: argparse.Namespace) -> Ledger:
    """All judgments that there are to make, and which of them are there."""
    questions = bench.questions().questions[: args.first_n]
    models = list(dict.fromkeys(args.model_list or bench.models()))
    if not models:
        raise UserError(
            f"no answers to judge: {bench.answers} has no answer file; run a gen_model_answer command first"
        )
    if args.mode == "pairwise-baseline":
        models = [model for model in models if model != args.baseline_model]
        contests = [(model, args.baseline_model) for model in models]
    else:
        contests = (
            [(model,) for model in models]
            if args.mode == "single"
            else list(combinations(models, 2))
        )
    if not contests:
        raise UserError(
            f"--mode {args.mode} needs two models with answers, found {', '.join(models) or args.baseline_model}"
        )
    answers = {model: bench.read_model(model) for contest in contests for model in contest}
    for model, given in answers.items():
        _warn_of_holes(model, given, questions)
    kind = SINGLE if args.mode == "single" else PAIRWISE
    prompts = read_prompts(args.judge_file or bench.prompt_file(), kind)
    references = {}
    if any(question.category in NEED_REFERENCE for question in questions):
        references = read_answers(_reference_file(bench, args))
    matches = make_matches(questions, answers, contests, prompts, references)
    if not matches:
        raise UserError(
            f"nothing to judge: {', '.join(answers)} answered none of the {len(questions)} questions"
        )
    return Ledger(path, args.judge_model, matches)


def _warn_of_holes(model: str, answers: dict[int, Answer], questions: tuple[Question, ...]) -> None:
    """One line for what a model did not answer; it is not judged, and not a bad grade either."""
    for turn in (1, 2):
        holes = [
            question.question_id
            for question in questions
            if len(question.turns) >= turn
            and not (
                (answer := answers.get(question.question_id)) and answer.choices[0].answered(turn)
            )
        ]
        if holes:
            listed = ", ".join(map(str, holes[:5])) + (", ..." if len(holes) > 5 else "")
            print(
                f"warning: {model} has no answer in turn {turn} to {len(holes)} of {len(questions)} questions ({listed}); "
                "they are not judged",
                file=sys.stderr,
            )
    if any(len(answer.choices) > 1 for answer in answers.values()):
        print(
            f"note: {model} has several choices to a question; the first is judged, as in FastChat",
            file=sys.stderr,
        )


def _reference_file(bench: Bench, args: argparse.Namespace) -> Path:
    if args.reference_file:
        return args.reference_file
    by_judge = bench.references / f"{args.judge_model}.jsonl"
    if by_judge.is_file():
        return by_judge
    there = sorted(bench.references.glob("*.jsonl"))
    if len(there) == 1:
        return there[0]
    found = ", ".join(path.name for path in there) or "no file"
    raise UserError(
        f"questions of {', '.join(NEED_REFERENCE[:3])} are judged against reference answers: expected {by_judge} or a single "
        f"file beside it, found {found}; name one with --reference-file"
    )


def _client(args: argparse.Namespace) -> "JudgeClient":
    try:
        from llm_judge.client import JudgeClient
    except ImportError as error:
        raise UserError(
            f"judging needs the package {error.name!r}: pip install 'medusa-bench[judge]'"
        ) from error
    options: dict[str, object] = {"max_tokens": args.max_tokens}
    if args.max_completion_tokens:
        options = {"max_completion_tokens": args.max_completion_tokens}
    if args.temperature != "none":
        try:
            options["temperature"] = float(args.temperature)
        except ValueError:
            raise UserError(
                f"--temperature is {args.temperature!r}; expected a number or none"
            ) from None
    return JudgeClient(
        args.judge_model,
        args.api_base,
        options=options,
        timeout_s=args.timeout,
        tries=args.tries,
        backoff_s=args.backoff,
    )


def judge_all(
    client: "JudgeClient", ledger: Ledger, calls: list[tuple[Match, int]], parallel: int
) -> Counter[str]:
    """Make the calls, so many at once; returns how often which failure came. UserError where no call can succeed."""
    from llm_judge.client import CallFailed, EndpointTrouble

    def call(match: Match, index: int) -> tuple[int, int]:
        reply = client.ask(match.system, match.users[index])
        ledger.add(match, index, reply.text)
        return reply.prompt_tokens, reply.completion_tokens

    failed: Counter[str] = Counter()
    tokens_in = tokens_out = in_a_row = 0
    pool = ThreadPoolExecutor(parallel)
    try:
        with tqdm(total=len(calls), unit="call", desc="judging", dynamic_ncols=True) as bar:
            for future in as_completed([pool.submit(call, *each) for each in calls]):
                try:
                    used = future.result()
                    tokens_in, tokens_out, in_a_row = tokens_in + used[0], tokens_out + used[1], 0
                except CallFailed as error:
                    failed[str(error)] += 1
                    # Calls that are refused for what they hold, such as their length, say nothing of the others.
                    in_a_row += isinstance(error, EndpointTrouble)
                    if in_a_row >= GIVE_UP_AFTER:
                        raise UserError(
                            f"{in_a_row} calls in a row failed, the last one with: {error}; what arrived is kept, and the "
                            "same command goes on from there"
                        ) from error
                bar.set_postfix_str(
                    f"tokens {tokens_in:,} in, {tokens_out:,} out; {failed.total()} failed"
                )
                bar.update()
    except KeyboardInterrupt:
        print(
            "\ninterrupted; taking in what is under way (Ctrl-C again: leave it)", file=sys.stderr
        )
        raise
    finally:
        client.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
    print(f"{tokens_in:,} tokens of prompts, {tokens_out:,} of replies")
    return failed


def _report(ledger: Ledger, failed: Counter[str]) -> int:
    rows = ledger.rows()
    unread = sum(not has_verdict(row) for row in rows)
    without = f", {unread} of them without a verdict" if unread else ""
    print(f"{ledger.path}: {len(rows)} of {len(ledger.matches)} judgments{without}")
    for message, count in failed.most_common(3):
        print(f"failed {count}x: {message}", file=sys.stderr)
    if failed:
        print(
            f"error: {failed.total()} calls failed and are no scores; the same command asks for them again",
            file=sys.stderr,
        )
        return 1
    return 0


def command() -> int:
    try:
        return main()
    except KeyboardInterrupt as stop:
        print(
            "every judgment that arrived is kept, and the same command goes on from there",
            file=sys.stderr,
        )
        sys.stderr.flush()
        return stop.status if isinstance(stop, Stopped) else 130


if __name__ == "__main__":
    exit_cleanly(command)
