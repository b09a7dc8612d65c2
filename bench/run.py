"""Answer a question set with several decoders on one loaded model, and compare them.

    python -m bench.run                                             the demo model, its sample questions, dynamic
    python -m bench.run --decoder greedy,static,dynamic             three decoders, compared
    python -m bench.run --decoder greedy,dynamic:nodes=16,dynamic   one decoder in two sizes
    python -m bench.run --model FasterDecoding/medusa-vicuna-7b-v1.3 --template vicuna_v1.1 \\
        --questions mt_bench --temperature 0 --decoder greedy,static,dynamic --out results/vicuna-7b

A run is a folder: run.json, turns.jsonl (one row a turn, the source of every number), and, made from these, answers/
(FastChat's format), summary.csv, figures/ and report.html. An interrupted run goes on with the same command and --out. Ctrl-C
and SIGTERM wait for the turn that is under way; a second one does not.

Exit status: 0 every turn is finished, 1 some failed (the others count; the same command tries the failed ones again), 2 the
request or the machine was at fault and the message says how, 130 and 143 stopped by Ctrl-C and by SIGTERM.
"""

import argparse
import shlex
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path

from bench.common.errors import UserError, exit_cleanly
from bench.common.signals import Stopped
from bench.fetch import SETS
from bench.inputs.loader import DTYPES
from bench.report import derive, print_summary
from bench.running.config import RunConfig
from bench.running.runner import run
from decoders import registry
from decoders.accept import ACCEPTANCES
from decoders.budget import AUTO


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m bench.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = {field.name: field.default for field in fields(RunConfig)}

    def flag(name: str, text: str, **options: object) -> None:
        made.add_argument(
            f"--{name}", help=text, default=default[name.replace("-", "_")], **options
        )

    names = ", ".join(sorted(registry.available()))
    made.add_argument(
        "--decoder", default="dynamic", metavar="NAMES",
        help=f"comma-separated: {names}; options behind colons, as in dynamic:nodes=16 (default: dynamic)",
    )  # fmt: skip
    flag("model", "demo, a folder, or a hub id (default: demo)")
    flag(
        "questions",
        f"sample, {', '.join(SETS)}, or a .jsonl file in MT-Bench's format (default: sample)",
    )
    flag("template", "a FastChat conversation name, or chat: the tokenizer's own (default)")
    made.add_argument(
        "--temperature", default="auto", help="auto: MT-Bench's, by category (default); or a number"
    )
    flag(
        "acceptance",
        f"above temperature 0: {', '.join(ACCEPTANCES)} (default: lossless); at 0 always exact",
    )
    flag("top-p", "sample from the nucleus of this mass (default: 1, everything)", type=float)
    flag("posterior-threshold", "epsilon of typical acceptance (default: 0.09)", type=float)
    flag("posterior-alpha", "alpha of typical acceptance (default: 0.3)", type=float)
    flag(
        "nodes",
        "nodes of the tree, root included (default: 64), or auto: what pays on this machine; of static where its tree is the "
        "model's own (this and the next three are for the decoders that have them)",
        type=_nodes,
    )
    flag("topk", "guesses taken from each head (default: 32)", type=int)
    flag(
        "depth",
        "levels of the tree below the root (default: as many as heads; conditional: two more)",
        type=int,
    )
    flag(
        "tree",
        "static's tree: a published name, a JSON file, or own (default: own where there is one)",
    )
    flag("max-new-tokens", "tokens a turn at most (default: 1024)", type=int)
    flag("num-choices", "answers to each question (default: 1)", type=int)
    flag("seed", "of all samples (default: 0)", type=int)
    flag("limit", "only the first so many questions", type=int)
    flag("skip", "leave out the first so many questions (default: 0)", type=int)
    flag("device", "auto (default), cpu, cuda, cuda:N, mps, or balanced: one model over all GPUs")
    flag("gpus", "with balanced: spread over the first so many GPUs (default: all)", type=int)
    flag("max-gpu-memory", "with balanced: memory of each GPU for weights, such as 20GiB")
    flag(
        "dtype",
        f"{', '.join(DTYPES)} (auto: the checkpoint's on an accelerator, float32 on the CPU)",
        choices=DTYPES,
    )
    for bits in (8, 4):
        made.add_argument(
            f"--load-in-{bits}bit",
            action="store_true",
            help=f"quantise to {bits} bits (CUDA, bitsandbytes)",
        )
    made.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="execute Python files that the model brings along",
    )
    made.add_argument(
        "--static-shapes", action=argparse.BooleanOptionalAction,
        help="steps of fixed shapes, captured as CUDA graphs where there is CUDA (default: there only)",
    )  # fmt: skip
    made.add_argument(
        "--compile",
        action="store_true",
        help="fuse the model's small operations; pays in long GPU runs only",
    )
    made.add_argument(
        "--workers",
        type=int,
        default=1,
        help="models that answer at once, through Ray (default: 1)",
    )
    made.add_argument(
        "--ray-address", help="of an existing Ray cluster to work on (default: this machine alone)"
    )
    made.add_argument("--out", type=Path, help="folder of the run (default: a new one in results/)")
    return made


def _nodes(text: str) -> int | str:
    try:
        return text if text == AUTO else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor {AUTO}") from None


def main() -> int:
    args = vars(parser().parse_args())
    out = args.pop("out") or Path("results") / f"{datetime.now():%Y%m%d-%H%M%S}"
    workers = {name: args.pop(name) for name in ("workers", "ray_address")}
    args["decoders"] = tuple(
        name.strip() for name in args.pop("decoder").split(",") if name.strip()
    )
    if args["temperature"] == "auto":
        args["temperature"] = None
    else:
        try:
            args["temperature"] = float(args["temperature"])
        except ValueError:
            raise UserError(
                f"--temperature is {args['temperature']!r}; expected auto, 0, or a number from 0.001 on"
            ) from None
    command = ["python", "-m", "bench.run", *sys.argv[1:]]
    config = RunConfig(**args)
    for remark in config.remarks():
        print(f"note: {remark}", file=sys.stderr)
    try:
        folder = run(config, out, command, **workers)
    except KeyboardInterrupt as stop:
        again = shlex.join(
            command if "--out" in " ".join(command) else [*command, "--out", str(out)]
        )
        print(f"\ninterrupted; every finished turn is kept. To go on: {again}", file=sys.stderr)
        return stop.status if isinstance(stop, Stopped) else 130
    if not len(folder):
        first = next(iter(folder.failures.values()))
        print(
            f"error: all {len(folder.failures)} turns that were tried failed, the first with: {first}",
            file=sys.stderr,
        )
        return 1
    print_summary(
        derive(out), f"{folder.run['model']['name']} on {folder.run['questions']['name']}"
    )
    print(f"{out}: run.json, turns.jsonl, summary.csv, figures/, answers/, report.html")
    failed = len(folder.failures)
    if failed:
        print(
            f"error: {failed} turns failed and are in no number; the same command with --out {out} retries them",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
