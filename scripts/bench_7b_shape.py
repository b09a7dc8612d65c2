"""Step times of a model of Vicuna-7B's shape in half precision, with random weights: time does not depend on their values.

python scripts/bench_7b_shape.py --out results/7b-shape.json        # one GPU with 20 GB; nothing is downloaded
python scripts/bench_7b_shape.py --hidden 64 --layers 2 --device cpu --dtype float32 --rounds 1     # does it run?
python scripts/bench_7b_shape.py --compile --kernels                # and which kernels a step's time goes to

Reported, from interleaved rounds: bandwidth that a plain copy reaches and that greedy decoding reaches (bytes of weights read
a step / step time); a greedy step with and without graphs; tree steps by size, over a greedy step; what is left of a step
without the model's forward and the heads' (propose, accept, commit, and the host); transformers' `generate` over our greedy.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import LlamaConfig, LlamaForCausalLM

from bench.common.errors import UserError, exit_cleanly
from bench.common.files import write_atomically
from bench.inputs.loader import check_device
from bench.running.phases import PHASES, timed_steps
from bench.running.step_times import synchronise
from bench.store.records import environment, git_state
from decoders import registry
from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.loop import Stop
from decoders.model.heads import MedusaHeads
from decoders.model.model import Model

HEADS = 4
PROFILED = ("greedy", "dynamic:nodes=64")  # by --kernels
DECODERS = (
    "greedy",
    "dynamic:nodes=16",
    "dynamic:nodes=32",
    "dynamic:nodes=64",
    "dynamic:nodes=128",
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--hidden", type=int, default=4096, help="a multiple of 32 (default: 4096)")
    made.add_argument("--layers", type=int, default=32)
    made.add_argument("--vocab", type=int, default=32000)
    made.add_argument("--context", type=int, default=2048)
    made.add_argument("--length", type=int, default=512, help="prompt tokens (default: 512)")
    made.add_argument(
        "--tokens", type=int, default=64, help="tokens, or steps, a round (default: 64)"
    )
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument(
        "--compile", action="store_true", help="fuse the small operations of the model's forward"
    )
    made.add_argument(
        "--kernels", action="store_true", help="profile a few steps more, kernel by kernel"
    )
    made.add_argument("--device", default="cuda")
    made.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    made.add_argument("--out", type=Path, help="a JSON file of all numbers")
    return made


def main() -> None:
    args = parser().parse_args()
    for name in ("hidden", "layers", "vocab", "length", "tokens", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} is {getattr(args, name)}; expected at least 1")
    if args.hidden % 32:
        raise UserError(
            f"--hidden is {args.hidden}; expected a multiple of 32, the number of attention heads"
        )
    if args.length + (args.tokens + 2) * (HEADS + 1) > args.context:
        raise UserError(
            f"--length {args.length} and {args.tokens} steps do not fit in --context {args.context}"
        )
    if args.out is not None and not args.out.parent.is_dir():
        raise UserError(f"--out is {args.out}, but there is no folder {args.out.parent}")
    device = torch.device(check_device(args.device, quantised=False))
    model = made(args, device)
    rows = measure(model, args)
    kernels = {spec: kernels_of(model, args, spec) for spec in PROFILED} if args.kernels else {}
    weights = weight_bytes(model)
    greedy = next(row for row in rows if row["decoder"] == "greedy" and row["static_shapes"])
    report = {
        "schema_version": 1,
        "command": sys.argv,
        "git": git_state(),
        "environment": environment(device, model.dtype),
        "shape": {name: getattr(args, name) for name in ("hidden", "layers", "vocab", "length")},
        "weight_bytes": weights,
        "copy_bytes_per_s": copy_bandwidth(device),
        "greedy_bytes_per_s": weights / greedy["step_s"],
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "rows": rows,
        "kernels": kernels,
    }
    print_report(report, greedy["step_s"])
    if args.out is not None:
        write_atomically(args.out, json.dumps(report, indent=1) + "\n")
        print(args.out)


def made(args: argparse.Namespace, device: torch.device) -> Model:
    """The model with random weights and heads."""
    config = LlamaConfig(
        vocab_size=args.vocab, hidden_size=args.hidden, intermediate_size=args.hidden * 43 // 16, num_hidden_layers=args.layers,
        num_attention_heads=32, num_key_value_heads=32, max_position_embeddings=args.context, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    dtype = getattr(torch, args.dtype)
    with torch.device(device):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            lm = LlamaForCausalLM(config)
            heads = MedusaHeads(HEADS, args.hidden, args.vocab)
        finally:
            torch.set_default_dtype(before)
    for parameter in heads.parameters():
        parameter.data.normal_(0, 0.02)
    return Model(lm, heads, fused=args.compile)


def weight_bytes(model: Model) -> int:
    """Bytes of weights that a greedy step reads: all but the embedding table, of which it reads one row."""
    embedding = model.lm.get_input_embeddings().weight
    return sum(
        weight.numel() * weight.element_size()
        for weight in model.lm.parameters()
        if weight is not embedding
    )


def copy_bandwidth(device: torch.device, size: int = 1 << 30) -> float:
    """Bytes per second that a copy within a device's memory moves, reads and writes both counted: the median of 10."""
    size = size if device.type == "cuda" else 1 << 26
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    samples = []
    for _ in range(11):
        samples.append(_seconds(device, lambda: target.copy_(source)))
    return 2 * size / statistics.median(samples[1:])


def measure(model: Model, args: argparse.Namespace) -> list[dict]:
    """Median seconds of a step by decoder, with static shapes and without, the rounds interleaved."""
    prompt = torch.randint(args.vocab, (args.length,), generator=torch.Generator().manual_seed(0))
    settings = [(spec, static) for static in (False, True) for spec in DECODERS] + [
        ("hf-greedy", False)
    ]
    decoders: dict[tuple[str, bool], Decoder] = {
        setting: registry.make(setting[0]) for setting in settings
    }
    for decoder in decoders.values():
        decoder.setup(model)
    samples: dict[tuple[str, bool], list[float]] = {setting: [] for setting in settings}
    for number in range(1 + args.rounds):
        for spec, static in settings:
            model.static_shapes = static
            decoder = decoders[spec, static]
            steps = decoder.decode(prompt, Exact(), Stop(frozenset(), args.tokens))
            taken: list[object] = []
            seconds = _seconds(model.device, lambda steps=steps, taken=taken: taken.extend(steps))
            if number > 0:  # the first round captures graphs and warms up
                samples[spec, static].append(seconds / len(taken))
    rows = []
    for (spec, static), seconds in samples.items():
        row = {"decoder": spec, "static_shapes": static, "step_s": statistics.median(seconds)}
        if spec != "hf-greedy":
            model.static_shapes = static
            profiles = timed_steps(decoders[spec, static], prompt, min(16, args.tokens))
            row["graphs"] = static and model.graphs.captures
            row["forward_s"] = statistics.median(profile.forward for profile in profiles)
            for phase in PHASES:
                row[f"{phase}_s"] = statistics.median(profile.phases[phase] for profile in profiles)
            # A captured step has no phases but as a whole; one that is not captured is slower by fits and starts.
            whole = row["step_s"] if row["graphs"] else sum(row[f"{phase}_s"] for phase in PHASES)
            row["rest_s"] = whole - row["forward_s"] - row["draft_s"]
        rows.append(row)
    return rows


@torch.inference_mode()
def kernels_of(model: Model, args: argparse.Namespace, spec: str, steps: int = 16) -> list[dict]:
    """A step's kernels with static shapes, the most expensive first: name, calls and seconds a step. On a CPU: operations."""
    on_gpu = model.device.type == "cuda"
    model.static_shapes = True
    decoder = registry.make(spec)
    decoder.setup(model)
    prompt = torch.randint(args.vocab, (args.length,), generator=torch.Generator().manual_seed(0))
    for seen in (
        None,
        profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]),
    ):  # captured first
        decoding = decoder.decode(prompt, Exact(), Stop(frozenset(), args.tokens + steps))
        next(decoding)
        synchronise(model.device)
        with seen or nullcontext():
            for _ in islice(decoding, steps):
                pass
            synchronise(model.device)
    found = []
    for event in seen.key_averages():
        taken_us = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found.append(
            {"name": event.key, "calls": event.count / steps, "seconds": taken_us / 1e6 / steps}
        )
    return sorted(
        (each for each in found if each["seconds"] > 0), key=lambda each: -each["seconds"]
    )


def _seconds(device: torch.device, work) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def print_report(report: dict, greedy_s: float) -> None:
    where, copied, read = (
        report["environment"],
        report["copy_bytes_per_s"],
        report["greedy_bytes_per_s"],
    )
    print(f"{where['device']}, {where['dtype']}: {report['weight_bytes'] / 1e9:.2f} GB of weights")
    print(
        f"copy {copied / 1e9:.0f} GB/s; greedy reads {read / 1e9:.0f} GB/s, {100 * read / copied:.0f} % of it"
    )
    for row in report["rows"]:
        step = row["step_s"]
        shapes = (
            "graphs" if row.get("graphs") else "static shapes" if row["static_shapes"] else "eager"
        )
        line = f"{row['decoder']:18} {shapes:14} {1e3 * step:8.3f} ms a step, {step / greedy_s:.2f} greedy steps"
        if "rest_s" in row:
            forward, heads, rest = (
                1e3 * row["forward_s"],
                1e3 * row["draft_s"],
                100 * row["rest_s"] / step,
            )
            line += f"; forward {forward:.3f} ms, heads {heads:.3f} ms, rest {rest:.1f} %"
        print(line)
    for spec, kernels in report["kernels"].items():
        calls, busy = (sum(each[name] for each in kernels) for name in ("calls", "seconds"))
        print(f"{spec}: {calls:.0f} kernels a step, together {1e3 * busy:.3f} ms")
        for each in kernels[:12]:
            print(
                f"  {each['calls']:6.1f} x {1e6 * each['seconds'] / each['calls']:8.1f} us  {each['name'][:100]}"
            )


if __name__ == "__main__":
    exit_cleanly(main)
