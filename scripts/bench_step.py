"""Time of a step by phase, for decoders x context lengths, with its operations and host waits counted.

python scripts/bench_step.py                                             # the demo model on this machine
python scripts/bench_step.py --model my-heads/medusa --decoder static,dynamic:nodes=64,dynamic:nodes=128 --out step.json
python -m bench.report --phases step.json                                # a figure of it

The decoders take turns, round by round, so that a machine that gets busy meanwhile is busy for all of them; every number is
a median. "outside" is everything but the base model's own forward. Operations leave out views, which compute nothing.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from bench.common.errors import UserError, exit_cleanly
from bench.common.files import write_atomically
from bench.common.terminal import print_table
from bench.inputs.loader import DTYPES, Loaded, check_device, load
from bench.running.phases import PHASES, StepProfile, counted_steps, timed_steps
from bench.store.records import environment
from decoders import registry
from decoders.decoder import Decoder

DECODERS = "greedy,static,dynamic:nodes=8,dynamic:nodes=16,dynamic:nodes=32,dynamic:nodes=64,dynamic:nodes=128"
SCHEMA_VERSION = 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", default="demo", help="demo, a folder, or a hub id (default: demo)")
    made.add_argument(
        "--decoder",
        default=DECODERS,
        help=f"comma-separated, greedy is added (default: {DECODERS})",
    )
    made.add_argument(
        "--lengths",
        default="128,512",
        help="committed positions, comma-separated (default: 128,512)",
    )
    made.add_argument("--rounds", type=int, default=5, help="(default: 5)")
    made.add_argument(
        "--steps", type=int, default=20, help="steps a decoder and round (default: 20)"
    )
    made.add_argument("--device", default="auto")
    made.add_argument("--dtype", default="auto", choices=DTYPES)
    made.add_argument(
        "--static-shapes",
        action="store_true",
        help="steps of fixed shapes; on CUDA captured as graphs",
    )
    made.add_argument(
        "--compile", action="store_true", help="fuse the small operations of the model's forward"
    )
    made.add_argument("--out", type=Path, help="a JSON file of all numbers")
    return made


def main() -> None:
    args = parser().parse_args()
    try:
        lengths = [int(each) for each in args.lengths.split(",")]
    except ValueError:
        raise UserError(
            f"--lengths is {args.lengths!r}; expected numbers with commas between"
        ) from None
    if min(*lengths, args.rounds, args.steps) < 1:
        raise UserError("--lengths, --rounds and --steps must be at least 1")
    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out is {args.out}, but there is no folder {args.out.parent}")
    check_device(args.device, quantised=False)
    loaded = load(args.model, args.device, args.dtype, compile=args.compile)
    loaded.model.static_shapes = args.static_shapes
    decoders = bound(loaded, list(dict.fromkeys(["greedy", *args.decoder.split(",")])))
    rows = measure(decoders, lengths, args.rounds, args.steps, loaded.model.context)
    print_table(table(rows))
    if args.out is not None:
        record = {
            "schema_version": SCHEMA_VERSION, "command": sys.argv, "model": loaded.name, "static_shapes": args.static_shapes,
            "environment": environment(loaded.model.device, loaded.model.dtype), "rows": rows,
        }  # fmt: skip
        write_atomically(args.out, json.dumps(record, indent=1) + "\n")
        print(args.out)


def bound(loaded: Loaded, specs: list[str]) -> dict[str, Decoder]:
    """The decoders by spec, set up on the model; UserError for those that are unknown, do not fit or have no phases."""
    decoders = {}
    for spec in specs:
        try:
            decoder = registry.make(spec)
        except ValueError as error:  # which names the decoder
            raise UserError(str(error)) from error
        try:
            if decoder.auto:
                raise ValueError("its steps are of many sizes; give a number of nodes")
            if type(decoder).decode is not Decoder.decode:
                raise ValueError("its steps are not our loop's, and have no phases")
            decoder.setup(loaded.model)
        except (ValueError, OSError) as error:
            raise UserError(
                f"decoder {spec!r} cannot be measured on {loaded.name!r}: {error}"
            ) from error
        decoders[spec] = decoder
    return decoders


@torch.inference_mode()
def measure(
    decoders: dict[str, Decoder], lengths: list[int], rounds: int, steps: int, context: int
) -> list[dict]:
    """One row a decoder and length: nodes, seconds by phase, operations and waits of a step."""
    rows = []
    for length in lengths:
        longest = length + (steps + 1) * (
            1 + max(decoder.max_depth for decoder in decoders.values())
        )
        if longest > context:
            raise UserError(
                f"--lengths has {length}, which may grow to {longest}; the model's context is {context}"
            )
        vocab = next(iter(decoders.values())).model.vocab
        prompt = torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(length))
        counts = {spec: counted_steps(decoder, prompt, 3) for spec, decoder in decoders.items()}
        times: dict[str, list[StepProfile]] = defaultdict(list)
        for _ in range(rounds):
            for spec, decoder in decoders.items():
                times[spec] += timed_steps(decoder, prompt, steps)
        for spec, samples in times.items():
            rows.append(_row(spec, length, samples, counts[spec]))
    return rows


def _row(spec: str, length: int, samples: list[StepProfile], counts: list[StepProfile]) -> dict:
    def median(values) -> float:
        return statistics.median(values)

    return {
        "decoder": spec,
        "nodes": samples[0].nodes,
        "length": length,
        **{f"{phase}_s": median(sample.phases[phase] for sample in samples) for phase in PHASES},
        "forward_s": median(sample.forward for sample in samples),
        "outside_s": median(sample.outside for sample in samples),
        "step_s": median(sample.total for sample in samples),
        "operations": max(count.outside for count in counts),
        "synchronisations": max(count.waits for count in counts),
        "samples": len(samples),
    }


def table(rows: list[dict]) -> Table:
    """The rows in milliseconds, with ratios to the model's own forward and to a greedy step at the same length."""
    out = Table(
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        caption="milliseconds; outside: all but the model's own forward",
    )
    out.add_column("decoder", overflow="fold")
    for name in ("nodes", "length", *PHASES, "step", "outside /\nforward", "outside /\ngreedy step",
                 "step /\ngreedy step", "operations", "waits"):  # fmt: skip
        out.add_column(name, justify="right", no_wrap=True)
    greedy = {row["length"]: row["step_s"] for row in rows if row["decoder"] == "greedy"}
    for row in rows:
        step = greedy[row["length"]]
        out.add_row(
            row["decoder"], str(row["nodes"]), str(row["length"]), *(f"{1e3 * row[f'{phase}_s']:.2f}" for phase in PHASES),
            f"{1e3 * row['step_s']:.2f}", f"{row['outside_s'] / row['forward_s']:.2f}", f"{row['outside_s'] / step:.2f}",
            f"{row['step_s'] / step:.2f}", str(row["operations"]), str(row["synchronisations"]),
        )  # fmt: skip
    return out


if __name__ == "__main__":
    exit_cleanly(main)
