"""How fast a step's products read their weights: several ways to multiply, timed.

In a real step, a weight is no longer in the processor's caches when it is needed again. So every
product here goes through several copies of its weight, more than the caches can hold.

On CUDA the products of all copies are captured as one graph, as those of a step are, and the graph
is replayed. Launched one by one, small products would take as long as the host needs for launching.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from rich import box
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from bench.inputs.devices import check_device
from bench.inputs.loader import load
from bench.running.environment import environment
from decoders.engine.changes import Changes
from decoders.engine.few_rows import can_pack, columns, pack, packed, use_few_row_products
from decoders.engine.graphs import Graphs
from measuring.bandwidth import copy_bandwidth, seconds_of
from settings.measuring import ProductSettings

SCHEMA_VERSION = 1
BEYOND_CACHES = 1 << 27  # Bytes of weights, more than processors cache.
REPLAYS = 20  # Of a graph in a row, so that the last wait for the device takes little of the time.
TOLERANCE = 1e-2  # Relative and absolute, of half precision.
Way = Callable[[Tensor], Tensor]


def measure_products(settings: ProductSettings, command: list[str]) -> dict[str, object]:
    """The report of all numbers, as JSON data. UserError says what does not fit.

    command: what the report records as the command line.
    """
    device = torch.device(check_device(settings.device))
    dtype = getattr(torch, settings.dtype)
    sizes = demo_sizes() if settings.sizes is None else settings.sizes
    copied = copy_bandwidth(device)
    rows = [
        row
        for size in sizes
        for row in rows_of(size, settings.rows, device, dtype, settings.rounds, settings.compile)
    ]
    for row in rows:
        row["of_copy"] = row["bytes_per_s"] / copied
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "environment": environment(device, dtype),
        "copy_bytes_per_s": copied,
        "rows": rows,
    }


def demo_sizes() -> list[tuple[int, int]]:
    """[out, in] of the products that a step of the demo model is made of, each once."""
    model = load("demo", "cpu").model
    token = torch.zeros(1, 1, dtype=torch.long)
    with model.as_loaded(), torch.inference_mode():
        products = use_few_row_products(
            model.lm, lambda: model.lm(input_ids=token, use_cache=False), Changes()
        )
    return list(dict.fromkeys(tuple(product.weight.shape) for product in products))


def ways_of(weight: Tensor, with_reduced: bool) -> dict[str, Way]:
    """Name -> function that multiplies rows [rows, in] by `weight` [out, in]."""
    ways: dict[str, Way] = {
        "linear": lambda rows: F.linear(rows, weight),
        "columns": lambda rows: columns(rows, weight),
    }
    if weight.device.type == "cpu" and can_pack(weight.dtype):
        copy = pack(weight)
        ways["packed"] = lambda rows: packed(rows, copy)
    if with_reduced:
        ways["reduced"] = lambda rows: reduced(rows, weight)
    return ways


@torch.compile(dynamic=False)
def reduced(row: Tensor, weight: Tensor) -> Tensor:
    """The product of one row, as a sum that compiles to one kernel."""
    return (weight.float() * row.float()).sum(-1).to(row.dtype).unsqueeze(0)


@torch.inference_mode()
def rows_of(
    size: tuple[int, int],
    counts: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    rounds: int,
    with_reduced: bool,
) -> list[dict[str, object]]:
    """Seconds of one product of a weight [out, in], for each number of rows and each way.

    The ways take turns, and every number is a median over rounds. AssertionError where a way
    computes something else than F.linear.
    """
    # torch compiles a function for a limited number of shapes. Further ones would run uncompiled.
    torch._dynamo.reset()
    out, into = size
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(size, generator=generator).to(device, dtype) / into**0.5
    weight_bytes = weight.numel() * weight.element_size()
    copies = 1 + BEYOND_CACHES // weight_bytes
    ways = [ways_of(weight.clone(), with_reduced) for _ in range(copies)]
    found = []
    for count in counts:
        rows = torch.randn(count, into, generator=generator).to(device, dtype)
        names = [name for name in ways[0] if name != "reduced" or count == 1]
        _check(ways[0], names, rows)
        for name, seconds in _seconds_by_way(ways, names, rows, rounds).items():
            found.append(
                {
                    "out": out,
                    "in": into,
                    "rows": count,
                    "way": name,
                    "seconds": seconds,
                    "bytes_per_s": weight_bytes / seconds,
                }
            )
    return found


def _check(ways: dict[str, Way], names: list[str], rows: Tensor) -> None:
    expected = ways["linear"](rows)
    for name in names:
        torch.testing.assert_close(
            ways[name](rows),
            expected,
            rtol=TOLERANCE,
            atol=TOLERANCE,
            msg=f"{name} computes something else than linear",
        )


def _seconds_by_way(
    ways: list[dict[str, Way]], names: list[str], rows: Tensor, rounds: int
) -> dict[str, float]:
    """Median seconds of one product. ways: of every copy of the weight."""
    graphs = Graphs(rows.device)
    products = {
        name: partial(_multiply, [of_copy[name] for of_copy in ways], rows) for name in names
    }
    if graphs.captures:  # The first run is as it is, and the second is captured.
        for name in 2 * names:
            graphs.run(name, products[name])
    times = REPLAYS if graphs.captures else 1
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            work = partial(_repeat, times, partial(graphs.run, name, products[name]))
            samples[name].append(seconds_of(rows.device, work) / (times * len(ways)))
    return {name: statistics.median(seconds) for name, seconds in samples.items()}


def _repeat(times: int, work: Callable[[], None]) -> None:
    for _ in range(times):
        work()


def _multiply(products: list[Way], rows: Tensor) -> None:
    for product in products:
        product(rows)


def table(rows: list[dict]) -> Table:
    """A line for each product and number of rows, a column for each way."""
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
