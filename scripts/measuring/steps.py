"""Time of a step by phase, for decoders and context lengths."""

import statistics
from collections import defaultdict
from collections.abc import Sequence

import torch
from rich import box
from rich.table import Table
from torch import Tensor

from bench.common.errors import UserError
from bench.inputs.devices import check_device
from bench.inputs.loader import Loaded, load
from bench.running.decoders import bind, make_decoder
from bench.running.environment import environment
from bench.running.phases import StepProfile, counted_steps, timed_steps
from bench.store.step_profile import PHASES, SCHEMA_VERSION
from decoders.decoder import Decoder
from decoders.spec import BASELINE, Spec
from settings.measuring import StepSettings

COUNTED = 3  # Steps whose operations are counted.


def measure_steps(settings: StepSettings, command: list[str]) -> dict[str, object]:
    """The report of all numbers, as JSON data. UserError says what does not fit.

    command: what the report records as the command line.
    """
    check_device(settings.device)
    loaded = load(settings.model, settings.device, settings.dtype, compile=settings.compile)
    loaded.model.static_shapes = settings.static_shapes
    texts = dict.fromkeys([BASELINE, *settings.decoder])
    decoders = dict(_bound(text, loaded) for text in texts)
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "model": loaded.name,
        "static_shapes": settings.static_shapes,
        "environment": environment(loaded.model.device, loaded.model.dtype),
        "rows": rows_of(decoders, settings.lengths, settings.rounds, settings.steps),
    }


def _bound(text: str, loaded: Loaded) -> tuple[str, Decoder]:
    """The label and the decoder of a spec, bound to a model.

    UserError where it is unknown, does not fit, or has no phases.
    """
    try:
        label, decoder = Spec.parse(text).label, make_decoder(text)
        if decoder.auto:
            raise ValueError("its steps are of many sizes; give a number of nodes")
        if type(decoder).decode is not Decoder.decode:
            raise ValueError("its steps are not our loop's, and have no phases")
    except ValueError as error:
        raise UserError(f"decoder {text!r} cannot be measured: {error}") from error
    return label, bind(label, decoder, loaded)


@torch.inference_mode()
def rows_of(
    decoders: dict[str, Decoder], lengths: Sequence[int], rounds: int, steps: int
) -> list[dict[str, object]]:
    """A row for each length and decoder: nodes, seconds by phase, operations and waits of a step.

    The decoders, by label, take turns round by round. So a machine that gets busy is busy for all
    of them. Every number is a median. UserError where a length does not fit in the model's context.
    """
    rows = []
    model = next(iter(decoders.values())).model
    deepest = max(decoder.max_depth for decoder in decoders.values())
    for length in lengths:
        longest = length + (steps + 1) * (1 + deepest)
        if longest > model.context:
            raise UserError(
                f"--lengths has {length}, which may grow to {longest}; the model's context is "
                f"{model.context}"
            )
        prompt = random_prompt(model.vocab, length, seed=length)
        counts = {
            label: counted_steps(decoder, prompt, COUNTED) for label, decoder in decoders.items()
        }
        times: dict[str, list[StepProfile]] = defaultdict(list)
        for _ in range(rounds):
            for label, decoder in decoders.items():
                times[label] += timed_steps(decoder, prompt, steps)
        rows += [_row(label, length, times[label], counts[label]) for label in decoders]
    return rows


def random_prompt(vocab: int, length: int, seed: int) -> Tensor:
    """Token ids [length]."""
    return torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(seed))


def medians_by_phase(samples: list[StepProfile]) -> dict[str, float]:
    """Seconds, as `<phase>_s`."""
    return {
        f"{phase}_s": statistics.median(sample.phases[phase] for sample in samples)
        for phase in PHASES
    }


def _row(
    label: str, length: int, samples: list[StepProfile], counts: list[StepProfile]
) -> dict[str, object]:
    sizes = [sample.nodes for sample in samples]
    return {
        "decoder": label,
        "nodes": round(statistics.median(sizes)),
        "nodes_range": [min(sizes), max(sizes)],
        "length": length,
        **medians_by_phase(samples),
        "forward_s": statistics.median(sample.forward for sample in samples),
        "outside_s": statistics.median(sample.outside for sample in samples),
        "step_s": statistics.median(sample.total for sample in samples),
        "operations": max(count.outside for count in counts),
        "synchronisations": max(count.waits for count in counts),
        "samples": len(samples),
    }


def table(rows: list[dict]) -> Table:
    """The rows in milliseconds, with ratios to the model's own forward and to a greedy step."""
    out = Table(
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        caption="milliseconds; outside: all but the model's own forward",
    )
    out.add_column("decoder", overflow="fold")
    ratios = ("outside /\nforward", "outside /\ngreedy step", "step /\ngreedy step")
    for name in ("nodes", "length", *PHASES, "step", *ratios, "operations", "waits"):
        out.add_column(name, justify="right", no_wrap=True)
    greedy = {row["length"]: row["step_s"] for row in rows if row["decoder"] == BASELINE}
    for row in rows:
        greedy_s, outside_s, step_s = greedy[row["length"]], row["outside_s"], row["step_s"]
        out.add_row(
            row["decoder"],
            "-".join(map(str, dict.fromkeys(row["nodes_range"]))),
            str(row["length"]),
            *(f"{1e3 * row[f'{phase}_s']:.2f}" for phase in PHASES),
            f"{1e3 * step_s:.2f}",
            f"{outside_s / row['forward_s']:.2f}",
            f"{outside_s / greedy_s:.2f}",
            f"{step_s / greedy_s:.2f}",
            str(row["operations"]),
            str(row["synchronisations"]),
        )
    return out
