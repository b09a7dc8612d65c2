"""Step times of a model of some shape, and the kernels that a step's time goes to."""

import statistics
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice

import torch
from torch.profiler import ProfilerActivity, profile

from bench.inputs.devices import check_device
from bench.running.clock import synchronise
from bench.running.environment import environment, git_state
from bench.running.phases import timed_steps
from bench.store.step_profile import PHASES
from decoders import registry
from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.engine.engine import Engine
from decoders.spec import Spec
from decoders.step import Step, Stop
from measuring.bandwidth import copy_bandwidth, seconds_of
from measuring.shape_model import shape_model, weight_bytes
from measuring.steps import medians_by_phase, random_prompt
from settings.measuring import ShapeSettings

SCHEMA_VERSION = 1
DECODERS = (
    "greedy",
    "dynamic:nodes=16",
    "dynamic:nodes=32",
    "dynamic:nodes=64",
    "dynamic:nodes=128",
)
PROFILED = ("greedy", "dynamic:nodes=64")  # Kernel by kernel.
PROFILED_STEPS = 16
NOTHING = "nothing"  # The row in which no change is left out.
Setting = tuple[str, bool]  # A decoder's spec, and whether shapes are static.


def measure_shape(settings: ShapeSettings, command: list[str]) -> dict[str, object]:
    """The report of all numbers, as JSON data. UserError says what does not fit.

    command: what the report records as the command line.
    """
    device = torch.device(check_device(settings.device))
    model = shape_model(settings, device)
    rows = rows_of(model, settings)
    kernels = {}
    if settings.kernels:
        kernels = {text: kernels_of(model, settings, text) for text in PROFILED}
    read = weight_bytes(model)
    is_on_cuda = device.type == "cuda"
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "git": git_state(),
        "environment": environment(device, model.dtype),
        "changes": model.changes.listed(),
        "shape": {
            name: getattr(settings, name) for name in ("hidden", "layers", "vocab", "length")
        },
        "weight_bytes": read,
        "copy_bytes_per_s": copy_bandwidth(device),
        "greedy_bytes_per_s": read / greedy_s(rows),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if is_on_cuda else None,
        "rows": rows,
        "kernels": kernels,
        "without": without_each(model, settings) if settings.without_each else [],
    }


def greedy_s(rows: list[dict]) -> float:
    """Seconds of a greedy step with static shapes."""
    return next(
        row["step_s"] for row in rows if row["decoder"] == "greedy" and row["static_shapes"]
    )


def peers_of(settings: ShapeSettings) -> tuple[str, str]:
    """The specs of transformers' own loops, which have no phases.

    The static cache holds the prompt and the answer, as `generate` makes it.
    """
    return "hf-greedy", f"hf-static:slots={settings.length + settings.tokens}"


def _bound(text: str, model: Engine) -> Decoder:
    decoder = registry.make(Spec.parse(text))
    decoder.setup(model)
    return decoder


def _decoding(decoder: Decoder, settings: ShapeSettings, steps: int) -> Iterator[Step]:
    """The steps of an answer of `steps` tokens to a random prompt."""
    prompt = random_prompt(settings.vocab, settings.length, seed=0)
    return decoder.decode(prompt, Exact(), Stop(frozenset(), steps))


def _step_s(decoder: Decoder, settings: ShapeSettings) -> float:
    """Mean seconds of a step over one answer. The prompt is read before the clock starts."""
    steps: list[Step] = []
    decoding = _decoding(decoder, settings, settings.tokens)
    return seconds_of(decoder.model.device, partial(steps.extend, decoding)) / len(steps)


def rows_of(model: Engine, settings: ShapeSettings) -> list[dict[str, object]]:
    """Median seconds of a step by decoder, with static shapes and without.

    The decoders take turns, round by round.
    """
    made: list[Setting] = [(text, static) for static in (False, True) for text in DECODERS]
    peers = peers_of(settings)
    made += [(text, False) for text in peers]
    decoders = {setting: _bound(setting[0], model) for setting in made}
    samples: dict[Setting, list[float]] = {setting: [] for setting in made}
    for number in range(1 + settings.rounds):
        for setting, decoder in decoders.items():
            model.static_shapes = setting[1]
            seconds = _step_s(decoder, settings)
            if number > 0:  # The first round warms up, and captures graphs.
                samples[setting].append(seconds)
    rows = []
    for setting, seconds in samples.items():
        row = {
            "decoder": setting[0],
            "static_shapes": setting[1],
            "step_s": statistics.median(seconds),
        }
        if setting[0] not in peers:
            row |= _phases(decoders[setting], setting[1], row["step_s"], settings)
        rows.append(row)
    return rows


def _phases(
    decoder: Decoder, static_shapes: bool, step_s: float, settings: ShapeSettings
) -> dict[str, object]:
    """Seconds by phase.

    `rest_s` is what is left of `whole_s`, a profiled step, without the forward and the heads.
    """
    model = decoder.model
    model.static_shapes = static_shapes
    prompt = random_prompt(settings.vocab, settings.length, seed=0)
    profiles = timed_steps(decoder, prompt, min(PROFILED_STEPS, settings.tokens))
    has_graphs = static_shapes and model.graphs.captures
    forward_s = statistics.median(each.forward for each in profiles)
    by_phase = medians_by_phase(profiles)
    # A captured step can only be timed as a whole. The time of one that is not captured varies, so
    # its phases are summed.
    whole_s = step_s if has_graphs else sum(by_phase[f"{phase}_s"] for phase in PHASES)
    return {
        "graphs": has_graphs,
        "forward_s": forward_s,
        **by_phase,
        "whole_s": whole_s,
        "rest_s": whole_s - forward_s - by_phase["draft_s"],
    }


@torch.inference_mode()
def kernels_of(model: Engine, settings: ShapeSettings, text: str) -> list[dict[str, object]]:
    """The kernels of a step with static shapes: name, calls and seconds a step.

    The most expensive comes first. On a CPU these are operations.
    """
    is_on_cuda = model.device.type == "cuda"
    model.static_shapes = True
    decoder = _bound(text, model)
    activity = ProfilerActivity.CUDA if is_on_cuda else ProfilerActivity.CPU
    profiler = profile(activities=[activity])
    for watching in (nullcontext(), profiler):  # The first time, graphs are captured.
        decoding = _decoding(decoder, settings, settings.tokens + PROFILED_STEPS)
        next(decoding)
        synchronise(model.device)
        with watching:
            for _ in islice(decoding, PROFILED_STEPS):
                pass
            synchronise(model.device)
    found = []
    for event in profiler.key_averages():
        taken_us = event.self_device_time_total if is_on_cuda else event.self_cpu_time_total
        if taken_us > 0:
            found.append(
                {
                    "name": event.key,
                    "calls": event.count / PROFILED_STEPS,
                    "seconds": taken_us / 1e6 / PROFILED_STEPS,
                }
            )
    return sorted(found, key=lambda kernel: -kernel["seconds"])


def without_each(model: Engine, settings: ShapeSettings) -> list[dict[str, object]]:
    """What each change to the model brings: median seconds of a step with static shapes without it.

    A row for each purpose of changes, and for NOTHING, and for each of PROFILED.
    """
    model.static_shapes = True
    decoders = {text: _bound(text, model) for text in PROFILED}
    rows = []
    for purpose in (NOTHING, *model.changes.listed()):
        model.graphs.clear()  # They hold what was in use when they were captured.
        with model.changes.without(purpose):
            for text, decoder in decoders.items():
                seconds = [_step_s(decoder, settings) for _ in range(1 + settings.rounds)]
                row = {
                    "without": purpose,
                    "decoder": text,
                    "step_s": statistics.median(seconds[1:]),
                }
                rows.append(row)
    model.graphs.clear()
    return rows


def lines_of(report: dict) -> Iterator[str]:
    """The report as lines to print."""
    where, copied = report["environment"], report["copy_bytes_per_s"] / 1e9
    read = report["greedy_bytes_per_s"] / 1e9
    yield f"{where['device']}, {where['dtype']}: {report['weight_bytes'] / 1e9:.2f} GB of weights"
    yield (
        f"copy {copied:.0f} GB/s; greedy reads {read:.0f} GB/s, {100 * read / copied:.0f} % of it"
    )
    for row in report["rows"]:
        yield _line(row, greedy_s(report["rows"]))
    for row in report["without"]:
        yield f"without {row['without']}: {row['decoder']} {1e3 * row['step_s']:.3f} ms a step"
    for text, kernels in report["kernels"].items():
        calls, busy = (sum(each[name] for each in kernels) for name in ("calls", "seconds"))
        yield f"{text}: {calls:.0f} kernels a step, together {1e3 * busy:.3f} ms"
        for each in kernels[:12]:
            us = 1e6 * each["seconds"] / each["calls"]
            yield f"  {each['calls']:6.1f} x {us:8.1f} us  {each['name'][:100]}"


def _line(row: dict, greedy: float) -> str:
    step = row["step_s"]
    shapes = "static shapes" if row["static_shapes"] else "eager"
    if row.get("graphs"):
        shapes = "graphs"
    line = (
        f"{row['decoder']:18} {shapes:14} {1e3 * step:8.3f} ms a step, "
        f"{step / greedy:.2f} greedy steps"
    )
    if "rest_s" in row:
        forward, heads = 1e3 * row["forward_s"], 1e3 * row["draft_s"]
        rest = 100 * row["rest_s"] / row["whole_s"]
        line += f"; forward {forward:.3f} ms, heads {heads:.3f} ms, rest {rest:.1f} %"
    return line
