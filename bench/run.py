"""Answer a question set with several decoders on one loaded model, and compare them.

    python -m bench.run                                             the demo model, dynamic
    python -m bench.run --decoder greedy,static,dynamic             three decoders, compared
    python -m bench.run --decoder greedy,dynamic:nodes=16,dynamic   one decoder in two sizes
    python -m bench.run --model FasterDecoding/medusa-vicuna-7b-v1.3 --template vicuna_v1.1 \\
        --questions mt_bench --temperature 0 --decoder greedy,static,dynamic \\
        --out results/vicuna-7b

A run is a folder. run.json and turns.jsonl (one row a turn) are the source of every number.
answers/ (FastChat's format), summary.csv, figures/ and report.html are made from these. An
interrupted run goes on with the same command and --out. Ctrl-C and SIGTERM wait for the turn that
is under way; a second one does not.

Exit status: 0 every turn is finished; 1 some turns failed, and the same command tries them again; 2
the request or the machine was at fault, and the message says how; 130 stopped by Ctrl-C; 143
stopped by SIGTERM.
"""

import argparse
import shlex
import sys
from datetime import datetime
from pathlib import Path

from bench.common.arguments import parser as make_parser
from bench.common.errors import UserError, exit_cleanly
from bench.common.flags import add_flags
from bench.common.signals import Stopped
from bench.common.waiting import patience
from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from decoders import registry
from decoders.options import written_options


def parser() -> argparse.ArgumentParser:
    parser = make_parser("python -m bench.run", __doc__)
    parser.epilog = "\n".join(["decoders and their options:", *decoders_listed()])
    parser.add_argument(
        "--decoder",
        default=",".join(RunConfig.decoders),
        metavar="NAMES",
        help="comma-separated names of the decoders below; options stand after colons, as in "
        "dynamic:nodes=16, and a label before, as in small=dynamic:nodes=8",
    )
    add_flags(parser, RunConfig)
    parser.add_argument(
        "--workers", type=int, default=1, help="models that answer at once, through Ray"
    )
    parser.add_argument(
        "--ray-address", help="address of an existing Ray cluster (default: this machine alone)"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the run (default: a new one in results/)"
    )
    return parser


def decoders_listed() -> list[str]:
    """A line for each decoder, with its options and their defaults. Nothing is imported."""
    lines = []
    for name, target in registry.BUILT_IN.items():
        options = (
            option.name if option.default == "None" else f"{option.name}={option.default}"
            for option in written_options(target)
        )
        lines.append(f"  {name:15}{', '.join(options) or 'none'}".replace("'", ""))
    for name, (point, *_) in registry.plugins().items():
        if name not in registry.BUILT_IN:
            lines.append(f"  {name:15}of {registry.package_of(point)}")
    return lines


def check_out(out: Path) -> None:
    """UserError where a file stands in the way. `RunFolder.open` looks into a folder."""
    nearest = next((each for each in (out, *out.parents) if each.exists()), None)
    if nearest is not None and not nearest.is_dir():
        raise UserError(f"{out} exists and is not a run's folder; give another --out")


def main() -> int:
    args = vars(parser().parse_args())
    out = args.pop("out") or Path("results") / f"{datetime.now():%Y%m%d-%H%M%S}"
    workers, ray_address = args.pop("workers"), args.pop("ray_address")
    names = args.pop("decoder").split(",")
    args["decoders"] = tuple(name.strip() for name in names if name.strip())
    config = RunConfig(**args)
    config.check()
    check_out(out)
    # The run reads them again. Here a wrong file is told before anything heavy is loaded.
    load_questions(config.questions, config.limit, config.skip)
    # Imported late: torch takes seconds to load. A wrong flag is reported before.
    with patience("loading libraries"):
        from bench.running.session import run

    command = ["python", "-m", "bench.run", *sys.argv[1:]]
    try:
        folder = run(config, out, command, workers, ray_address)
    except KeyboardInterrupt as stop:
        has_out = "--out" in " ".join(command)
        again = shlex.join(command if has_out else [*command, "--out", str(out)])
        print(f"\ninterrupted; every finished turn is kept. To go on: {again}", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130
    failures = list(folder.failures.values())
    if not len(folder):
        print(
            f"error: all {len(failures)} turns that were tried failed, the first with: "
            f"{failures[0]}",
            file=sys.stderr,
        )
        return 1
    # Imported once there are answers: the first of them does not wait for pandas and matplotlib.
    from bench.reporting.comparison import derive, print_summary
    from bench.reporting.last_lines import last_lines

    title = f"{folder.run.model.name} on {folder.run.questions.name}"
    report = derive(out)
    print_summary(report, title)
    for line in last_lines(report):
        print(line)
    print(f"{out}: run.json, turns.jsonl, summary.csv, figures/, answers/, report.html")
    if failures:
        print(
            f"error: {len(failures)} turns failed and are in no number; the same command with "
            f"--out {out} retries them",
            file=sys.stderr,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    exit_cleanly(main)
