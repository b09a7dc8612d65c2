"""Have a judge grade answers, or compare them in pairs, as MT-Bench does.

    python -m llm_judge.gen_judgment --dry-run              how many calls it would take
    OPENAI_API_KEY=... python -m llm_judge.gen_judgment --judge-model gpt-4 --parallel 8
    python -m llm_judge.gen_judgment --mode pairwise-baseline --baseline-model MODEL_ID
    python -m llm_judge.gen_judgment --api-base http://localhost:8000/v1 --judge-model my-judge \\
        --bench-name sample

Reads <data>/<bench>/model_answer/ and writes <data>/<bench>/model_judgment/<judge>_single.jsonl or
<judge>_pair.jsonl, in FastChat's formats (see llm_judge/judge_folder.py). Any OpenAI-compatible
endpoint will do. Its key is read from $OPENAI_API_KEY.

Every judgment is on disk when it arrives, and the same command asks only for what is missing. A
call that fails is tried again with growing pauses, or after the time that the server asks for. A
call that fails for good leaves no score, and the command ends with status 1. A reply that is empty
or cut off is such a failure. A reply without a readable grade is recorded with score -1, or with
the winner "error". Averages leave it out, and --ask-again asks for it anew.
"""

import argparse
import math
import sys
from pathlib import Path

if not __package__:  # Run as a script, from wherever: the packages lie one folder up.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.common.arguments import parser as make_parser
from bench.common.arguments import positive, whole
from bench.common.errors import UserError, exit_cleanly, warn
from bench.common.files import sole_writer
from bench.common.flags import refuse_ignored
from bench.common.signals import Stopped
from bench.store.question_id import first_few
from llm_judge.flags import add_data_flags, add_judgment_flags
from llm_judge.judge_folder import Bench
from llm_judge.judging import Match
from llm_judge.judging_plan import plan
from llm_judge.judgments import has_verdict
from llm_judge.ledger import Ledger

CHARACTERS_A_TOKEN = 4  # Roughly, of English.


def parser() -> argparse.ArgumentParser:
    made = make_parser("python -m llm_judge.gen_judgment", __doc__)
    add = made.add_argument
    add_data_flags(made)
    add_judgment_flags(made)
    add("--first-n", type=whole(1), help="only the first so many questions (default: all)")
    add(
        "--judge-file",
        type=Path,
        help="file of the judge prompts (default: the published ones for a published bench, else "
        "our own)",
    )
    references = made.add_mutually_exclusive_group()
    references.add_argument(
        "--reference-file",
        type=Path,
        help="file of the reference answers (default: reference_answer/<judge>.jsonl, or the only "
        "file there)",
    )
    references.add_argument(
        "--no-references",
        action="store_true",
        help="judge every question without a reference answer, also in maths, reasoning and coding",
    )
    add(
        "--strip-thinking",
        action="store_true",
        help="do not show the judge the thoughts that an answer begins with (<think>...</think>)",
    )
    add(
        "--ask-again",
        action="store_true",
        help="ask again for judgments without a readable verdict",
    )
    add(
        "--api-base",
        help="URL of the endpoint, up to and with /v1 (default: $OPENAI_BASE_URL, or OpenAI's); a "
        "query such as ?api-version=... goes with every request",
    )
    add(
        "--temperature",
        type=parse_temperature,
        default="0",
        help="temperature of the judge; none: leave it to the endpoint",
    )
    length = made.add_mutually_exclusive_group()
    length.add_argument("--max-tokens", type=whole(1), default=2048, help="most tokens of a reply")
    length.add_argument(
        "--max-completion-tokens",
        type=whole(1),
        help="the same limit, for models that only accept this name",
    )
    add("--parallel", type=whole(1), default=1, help="calls at once")
    add("--timeout", type=positive, default=120, help="seconds to wait for a reply")
    add("--tries", type=whole(1), default=8, help="tries of a call before it counts as failed")
    add(
        "--backoff",
        type=positive,
        default=1,
        help="most seconds before the first retry; they double with every retry",
    )
    add("--dry-run", action="store_true", help="say how many calls there are to make; make none")
    return made


def parse_temperature(text: str) -> float | None:
    """The type of --temperature: a number, or None for "none"."""
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"--temperature is {text!r}; expected a number or none")
    return value


def main() -> int:
    flags = parser()
    args = flags.parse_args()
    if args.mode != "pairwise-baseline":
        refuse_ignored(
            args, flags.get_default, ["baseline_model"], f"--mode {args.mode} has no baseline"
        )
    bench = Bench.of(args.bench_name, args.data_dir)
    bench.questions()
    path = bench.judgments(args.judge_model, is_single=args.mode == "single")
    if args.dry_run:
        _print_missing_calls(_ledger(bench, path, args), bench, args)
        return 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{path.parent} cannot be made: {error.strerror}; give another --data-dir"
        ) from error
    with sole_writer(path):
        ledger = _ledger(bench, path, args)
        calls = _print_missing_calls(ledger, bench, args)
        if calls:
            try:  # openai and tenacity are extras.
                from llm_judge.client import JudgeClient
                from llm_judge.judging_run import make_calls
            except ImportError as error:
                raise UserError(
                    f"judging needs the package {error.name!r}: pip install 'medusa-bench[judge]'"
                ) from error
            client = JudgeClient(
                args.judge_model,
                args.api_base,
                options=_options(args),
                timeout_s=args.timeout,
                tries=args.tries,
                backoff_s=args.backoff,
            )
        ledger.begin()
        try:
            failed = make_calls(client, ledger, calls, args.parallel) if calls else {}
        finally:
            ledger.tidy()
        return _report(ledger, failed)


def _ledger(bench: Bench, path: Path, args: argparse.Namespace) -> Ledger:
    matches = plan(
        bench,
        args.mode,
        args.judge_model,
        args.model_list,
        args.baseline_model,
        first=args.first_n,
        prompt_file=args.judge_file,
        reference_file=args.reference_file,
        no_references=args.no_references,
        strip_thinking=args.strip_thinking,
    )
    return Ledger(path, args.judge_model, matches, args.temperature, again=args.ask_again)


def _print_missing_calls(
    ledger: Ledger, bench: Bench, args: argparse.Namespace
) -> list[tuple[Match, int]]:
    """Print how many calls there are to make, and return them."""
    calls = ledger.missing()
    characters = sum(len(match.system) + len(match.users[index]) for match, index in calls)
    thousands = max(1, characters // (1000 * CHARACTERS_A_TOKEN))
    tokens = f", about {thousands},000 tokens of prompts" if calls else ""
    print(
        f"{bench.name}, {args.mode}, judge {args.judge_model}: {len(ledger.matches)} judgments, "
        f"{len(ledger.rows())} there already; {len(calls)} calls to make{tokens}"
    )
    return calls


def _options(args: argparse.Namespace) -> dict[str, object]:
    """The parameters of every request."""
    options: dict[str, object] = {"max_tokens": args.max_tokens}
    if args.max_completion_tokens is not None:
        options = {"max_completion_tokens": args.max_completion_tokens}
    if args.temperature is not None:
        options["temperature"] = args.temperature
    return options


def _report(ledger: Ledger, failed: dict[str, list[Match]]) -> int:
    """Print how many judgments there are now. Returns the exit status: 1 where calls failed."""
    rows = ledger.rows()
    unread = sum(not has_verdict(row) for row in rows)
    without = f", {unread} of them without a verdict (--ask-again asks anew)" if unread else ""
    print(f"{ledger.path}: {len(rows)} of {len(ledger.matches)} judgments{without}")
    for message, matches in sorted(failed.items(), key=lambda each: -len(each[1]))[:3]:
        questions = list(dict.fromkeys(match.question_id for match in matches))
        warn(f"failed {len(matches)}x: {message} (question {first_few(questions)})")
    if failed:
        print(
            f"error: {sum(map(len, failed.values()))} calls failed and are no scores; the same "
            "command asks for them again",
            file=sys.stderr,
        )
        return 1
    return 0


def command() -> int:
    """Run `main`, and print a message where it is interrupted."""
    try:
        return main()
    except KeyboardInterrupt as stop:
        print(
            "every judgment that arrived is kept, and the same command goes on from there",
            file=sys.stderr,
            flush=True,
        )
        return stop.status if isinstance(stop, Stopped) else 130


if __name__ == "__main__":
    exit_cleanly(command)
