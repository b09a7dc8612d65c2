"""How fast a step's products read their weights: each size of them, times a few rows, computed in several ways.

python scripts/bench_products.py                                # the demo model's products, on this machine
python scripts/bench_products.py --sizes 12288x4096,4096x4096,22016x4096,4096x11008,32000x4096 --device cuda \\
    --dtype float16 --rows 1,64 --compile                       # those of a 7B model of Llama's shape

    linear    F.linear
    columns   weight @ rows.T
    packed    oneDNN's, from a copy of the weight (CPU, float32)
    reduced   (weight * row).sum(-1) as one compiled kernel, for one row (with --compile)

`decoders/linears.py` chooses among the first three, by the number of rows. A step never finds a weight in the caches that it
left it in, so every product here goes through as many copies of its weight as caches cannot hold. The ways take turns; every
number is a median over rounds, as microseconds and as bytes of weights a second over those that a plain copy moves.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from bench_7b_shape import copy_bandwidth
from rich import box
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from bench.common.errors import UserError, exit_cleanly
from bench.common.files import write_atomically
from bench.common.terminal import print_table
from bench.inputs.loader import check_device, load
from bench.running.step_times import synchronise
from bench.store.records import environment
from decoders.engine.linears import FewRowLinears, columns, pack, packed

BEYOND_CACHES = 1 << 27  # bytes
SCHEMA_VERSION = 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--sizes", help="OUTxIN, comma-separated (default: those of the demo model)")
    made.add_argument(
        "--rows", default="1,2,4,8,16,64", help="comma-separated (default: 1,2,4,8,16,64)"
    )
    made.add_argument("--device", default="cpu")
    made.add_argument("--dtype", default="float32", choices=("float16", "bfloat16", "float32"))
    made.add_argument("--rounds", type=int, default=7, help="(default: 7)")
    made.add_argument(
        "--compile",
        action="store_true",
        help="measure `reduced` too; on a CPU it needs a C++ compiler",
    )
    made.add_argument("--out", type=Path, help="a JSON file of all numbers")
    return made


@torch.inference_mode()
def main() -> None:
    args = parser().parse_args()
    if args.rounds < 1:
        raise UserError(f"--rounds is {args.rounds}; expected at least 1")
    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out is {args.out}, but there is no folder {args.out.parent}")
    device, dtype = (
        torch.device(check_device(args.device, quantised=False)),
        getattr(torch, args.dtype),
    )
    counts = numbers("--rows", args.rows)
    sizes = (
        demo_sizes() if args.sizes is None else [given_size(each) for each in args.sizes.split(",")]
    )
    copied = copy_bandwidth(device)
    rows = [
        row
        for size in sizes
        for row in measure(size, counts, device, dtype, args.rounds, args.compile)
    ]
    for row in rows:
        row["of_copy"] = row["bytes_per_s"] / copied
    name = environment(device, dtype)["device"]
    print(
        f"{name}, {args.dtype}: a copy moves {copied / 1e9:.1f} GB/s, reads and writes both counted"
    )
    print_table(table(rows))
    if args.out is not None:
        record = {
            "schema_version": SCHEMA_VERSION, "command": sys.argv, "environment": environment(device, dtype),
            "copy_bytes_per_s": copied, "rows": rows,
        }  # fmt: skip
        write_atomically(args.out, json.dumps(record, indent=1) + "\n")
        print(args.out)


def numbers(name: str, text: str) -> list[int]:
    found = text.split(",")
    if not all(each.isascii() and each.isdigit() and int(each) > 0 for each in found):
        raise UserError(f"{name} is {text!r}; expected numbers from 1 on, with commas between")
    return [int(each) for each in found]


def given_size(text: str) -> tuple[int, int]:
    found = text.split("x")
    if len(found) != 2:
        raise UserError(f"--sizes has {text!r}; expected OUTxIN, such as 4096x11008")
    return tuple(numbers("--sizes", ",".join(found)))


def demo_sizes() -> list[tuple[int, int]]:
    """[out, in] of the products that a step of the demo model is made of, each once."""
    changes = load("demo", "cpu").model.changes
    products = next(change for change in changes if isinstance(change, FewRowLinears)).products
    return list(dict.fromkeys(tuple(product.weight.shape) for product in products))


def ways(weight: Tensor, compiled: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """What computes the product with `weight` [out, in], by name, from rows [rows, in]."""
    found = {
        "linear": lambda rows: F.linear(rows, weight),
        "columns": lambda rows: columns(rows, weight),
    }
    if (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and torch.backends.mkldnn.is_available()
    ):
        copy = pack(weight)
        found["packed"] = lambda rows: packed(rows, copy)
    if compiled:
        found["reduced"] = lambda rows: reduced(rows, weight)
    return found


@torch.compile(dynamic=False)
def reduced(row: Tensor, weight: Tensor) -> Tensor:
    return (weight.float() * row.float()).sum(-1).to(row.dtype).unsqueeze(0)


def measure(
    size: tuple[int, int],
    counts: list[int],
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    compiled: bool,
) -> list[dict]:
    """One row a way and number of rows. AssertionError where a way computes something else than F.linear."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(size, generator=generator).to(device, dtype) / size[1] ** 0.5
    torch._dynamo.reset()  # of one function only so many shapes are compiled, and the others are run as they are
    copies = 1 + BEYOND_CACHES // (first.numel() * first.element_size())
    made = [ways(first.clone(), compiled) for _ in range(copies)]
    found = []
    for count in counts:
        rows = torch.randn(count, size[1], generator=generator).to(device, dtype)
        names = [name for name in made[0] if name != "reduced" or count == 1]
        expected = made[0]["linear"](rows)
        for name in names:
            said = f"{name} computes something else than linear"
            torch.testing.assert_close(
                made[0][name](rows), expected, rtol=1e-2, atol=1e-2, msg=said
            )
        samples: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                synchronise(device)
                began = time.perf_counter()
                for each in made:
                    each[name](rows)
                synchronise(device)
                samples[name].append((time.perf_counter() - began) / copies)
        for name in names:
            seconds = statistics.median(samples[name])
            found.append({
                "out": size[0], "in": size[1], "rows": count, "way": name, "seconds": seconds,
                "bytes_per_s": first.numel() * first.element_size() / seconds,
            })  # fmt: skip
    return found


def table(rows: list[dict]) -> Table:
    out = Table(
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        caption="us (bytes of weights a second, over a copy's)",
    )
    out.add_column("product", no_wrap=True)
    names = list(dict.fromkeys(row["way"] for row in rows))
    for name in ("rows", *names):
        out.add_column(name, justify="right", no_wrap=True)
    lines: dict[tuple, dict[str, str]] = {}
    for row in rows:
        line = lines.setdefault((row["out"], row["in"], row["rows"]), {})
        line[row["way"]] = f"{1e6 * row['seconds']:.0f} ({row['of_copy']:.2f})"
    for (wide, deep, count), line in lines.items():
        out.add_row(f"{wide} x {deep}", str(count), *(line.get(name, "") for name in names))
    return out


if __name__ == "__main__":
    exit_cleanly(main)
