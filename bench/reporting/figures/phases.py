"""Where a step's time goes, drawn from the JSON file that `scripts/bench_step.py` writes."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from bench.reporting.figures.style import Figure, Names, bar_style, canvas, legend
from bench.store.step_profile import PHASES, StepTable


def draw_phases(steps: StepTable, folder: Path) -> Figure:
    """Draw step_phases.png and .svg into `folder`."""
    rows, device = steps.rows, steps.conditions.get("device")
    names = Names.of(row["decoder"] for row in rows)
    rows = [row | {"decoder": names[row["decoder"]]} for row in rows]
    lengths = sorted({row["length"] for row in rows})
    panels_of = [[row for row in rows if row["length"] == length] for length in lengths]
    most = max(map(len, panels_of))
    longest_ms = 1e3 * max(sum(row[f"{phase}_s"] for phase in PHASES) for row in rows)
    name = "step_phases"
    height = 1.5 + len(lengths) * (0.32 * most + 0.5)
    grid = dict(nrows=len(lengths), sharex=True, squeeze=False)
    with canvas(folder, name, 8.4, height, **grid) as (figure, panels):
        for axes, length, of_length in zip(panels[:, 0], lengths, panels_of, strict=True):
            _draw_bars(axes, of_length)
            axes.set_title(f"{length} tokens of context", fontsize=10, loc="left")
            axes.set_xlim(0, 1.3 * longest_ms)
        panels[-1, 0].set_xlabel("time of a step (ms)")
        legend(figure, panels[0, 0])
    on_device = f", on {device}" if device else ""
    caption = (
        f"Time of a step by phase, the median of each{on_device}; beside each bar the tensor "
        f"operations outside the model's forward and the waits for the device.{names.key}"
    )
    return Figure(name, "Where a step's time goes", caption, folder / f"{name}.png")


def _draw_bars(axes: Axes, rows: Sequence[dict]) -> None:
    """One bar for each decoder, of its phases."""
    for at, row in enumerate(rows):
        left = 0.0
        for number, phase in enumerate(PHASES):
            width = 1e3 * row[f"{phase}_s"]
            label = phase if at == 0 else None
            axes.barh(at, width, 0.7, left, label=label, **bar_style(number))
            left += width
        axes.annotate(
            f"{row['operations']} operations, waits: {row['synchronisations']}",
            (left, at),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), [row["decoder"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(axis="x", color="0.85")
