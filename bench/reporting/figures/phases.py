"""Where a step's time goes, from the JSON file that `scripts/bench_step.py` writes."""

import json
from pathlib import Path

from bench.common.errors import UserError
from bench.reporting.figures.style import Figure, bar_style, canvas, legend
from bench.running.phases import PHASES

SCHEMA_VERSION = 1


def draw_phases(path: Path, folder: Path) -> Figure:
    """step_phases.png and .svg in `folder`; UserError where the file is not what it must be."""
    rows, device = read_phases(path)
    lengths = sorted({row["length"] for row in rows})
    name = "step_phases"
    most = max(sum(row["length"] == length for row in rows) for length in lengths)
    height = 1.5 + len(lengths) * (0.32 * most + 0.5)
    longest = max(sum(row[f"{phase}_s"] for phase in PHASES) for row in rows) * 1e3
    with canvas(folder, name, 8.4, height, nrows=len(lengths), sharex=True, squeeze=False) as (
        figure,
        panels,
    ):
        for axes, length in zip(panels[:, 0], lengths, strict=True):
            own = [row for row in rows if row["length"] == length]
            for at, row in enumerate(own):
                left = 0.0
                for number, phase in enumerate(PHASES):
                    width = 1e3 * row[f"{phase}_s"]
                    axes.barh(
                        at, width, 0.7, left, label=phase if at == 0 else None, **bar_style(number)
                    )
                    left += width
                axes.annotate(
                    f"{row['operations']} operations, waits: {row['synchronisations']}", (left, at), (5, 0),
                    textcoords="offset points", va="center", fontsize=8,
                )  # fmt: skip
            axes.set_yticks(range(len(own)), [row["decoder"] for row in own])
            axes.set_ylim(len(own) - 0.4, -0.6)
            axes.set_title(f"{length} tokens of context", fontsize=10, loc="left")
            axes.grid(axis="x", color="0.85")
            axes.set_xlim(0, 1.3 * longest)
        panels[-1, 0].set_xlabel("time of a step (ms)")
        legend(figure, panels[0, 0])
    caption = (
        "Time of a step by phase, the median of each" + (f", on {device}" if device else "")
        + "; beside each bar the tensor operations outside the model's forward and the waits for the device."
    )  # fmt: skip
    return Figure(name, "Where a step's time goes", caption, folder / f"{name}.png")


def read_phases(path: Path) -> tuple[list[dict], str]:
    """(rows, name of the device) of the file."""
    expected = "expected the JSON file that scripts/bench_step.py writes"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {expected}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {expected}") from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}; this version reads {SCHEMA_VERSION}; {expected}"
        )
    kinds = {f"{phase}_s": (int, float) for phase in PHASES}
    kinds |= {"decoder": str, "length": int, "operations": int, "synchronisations": int}
    rows = record.get("rows")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} has no rows; {expected}")
    for number, row in enumerate(rows, start=1):
        for name, kind in kinds.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise UserError(f"{path}, row {number} has no {name}; {expected}")
    environment = record.get("environment")
    return rows, str(environment.get("device", "")) if isinstance(environment, dict) else ""
