"""Tokens per inference and speed against a swept option: nodes, topk, depth, temperature."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from bench.reporting.figures.style import (
    Figure,
    canvas,
    dodged,
    end_axis,
    interval_words,
    legend,
    line_style,
    with_intervals,
)

AXES = {
    "nodes": "nodes (root included)",
    "topk": "topk (guesses taken from each head)",
    "depth": "depth (levels below the root)",
    "temperature": "temperature",
}
RATIO = "wall_clock_ratio_with_prefill"
LOGARITHMIC = ("nodes", "topk")
# Name of a line -> its (value of the option, label), ascending.
Series = dict[str, list[tuple[float, str]]]


def sweeps(options: Mapping[str, Mapping]) -> dict[str, Series]:
    """The options that are swept: they take several numbers while all other options stay the same.

    options: label -> its decoder's name and options.

    >>> sweeps({
    ...     "d:nodes=8": {"decoder": "d", "nodes": 8},
    ...     "d": {"decoder": "d", "nodes": 64},
    ...     "g": {"decoder": "g"},
    ... })
    {'nodes': {'d': [(8.0, 'd:nodes=8'), (64.0, 'd')]}}
    """
    found: dict[str, Series] = {}
    for option in AXES:
        # The other options -> value of this one -> label.
        groups: dict[tuple, dict[float, str]] = {}
        for label, settings in options.items():
            try:
                value = float(settings[option])
            except (KeyError, TypeError, ValueError):
                continue  # The decoder has no such option, or it is "auto" or by category.
            others = tuple((name, other) for name, other in settings.items() if name != option)
            groups.setdefault(others, {}).setdefault(value, label)
        lines = {
            others: sorted(values.items()) for others, values in groups.items() if len(values) > 1
        }
        if lines:
            found[option] = {_name(others, lines): line for others, line in lines.items()}
    return found


def _name(settings: tuple, lines: Mapping[tuple, object]) -> str:
    """The name of a line: its decoder, and the options in which the decoder's lines differ."""
    decoder = dict(settings)["decoder"]
    rivals = [dict(other) for other in lines if dict(other)["decoder"] == decoder]
    differing = [
        f"{name}={value}"
        for name, value in settings
        if any(rival.get(name) != value for rival in rivals)
    ]
    return " ".join([decoder, *differing])


def draw_sweeps(folder: Path, table: pd.DataFrame, options: Mapping[str, Mapping]) -> list[Figure]:
    """A figure for every option that is swept.

    table: one row for each label (its index), with the columns of `metrics.decoder_row`.
    options: label -> its decoder's name and options.
    """
    swept = sweeps({label: options[label] for label in table.index if label in options})
    return [_draw(folder, table, option, series) for option, series in swept.items()]


def _draw(folder: Path, table: pd.DataFrame, option: str, series: Series) -> Figure:
    labels = [label for line in series.values() for _, label in line]
    is_timed = table.loc[labels, RATIO].notna().any()
    columns = {"tokens_per_inference": "tokens per inference\n(tokens / step)"}
    if is_timed:
        columns[RATIO] = "wall-clock ratio\n(tokens/s over the baseline's)"
    name = f"sweep_{option}"
    grid = dict(ncols=len(columns), squeeze=False)
    with canvas(folder, name, 4.6 * len(columns), 3.8, **grid) as (figure, panels):
        for axes, (column, axis_label) in zip(panels[0], columns.items(), strict=True):
            _draw_lines(axes, table, column, option, series)
            axes.set_ylabel(axis_label)
            if column == RATIO:
                axes.axhline(1, color="0.2", linewidth=0.9)
        legend(figure, panels[0][0])
    what = "Tokens per inference and wall-clock ratio" if is_timed else "Tokens per inference"
    return Figure(
        name,
        f"{what} against {option}",
        f"{what} against {AXES[option]} ({interval_words(table.loc[labels], list(columns))}).",
        folder / f"{name}.png",
    )


def _draw_lines(axes: Axes, table: pd.DataFrame, column: str, option: str, series: Series) -> None:
    """A line for each of the series, and the axis of the option."""
    ticks = sorted({value for line in series.values() for value, _ in line})
    closest = min(after - before for before, after in pairwise(ticks))
    is_logarithmic = option in LOGARITHMIC
    for at, (name, line) in enumerate(series.items()):
        labels = [label for _, label in line]
        values = table.loc[labels, [column, f"{column}_low", f"{column}_high"]].to_numpy(float)
        # Lines stand a little apart, as equal values would hide each other's intervals.
        aside = dodged(len(series), at, min(0.2, 0.03 * len(series)))
        places = [
            value * 2**aside if is_logarithmic else value + aside * closest for value, _ in line
        ]
        with_intervals(axes, places, values, label=name, elinewidth=1, **line_style(at))
    shown = [label for line in series.values() for _, label in line]
    end_axis(axes, table.loc[shown, column].to_numpy(float))
    if is_logarithmic:
        axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{value:g}" for value in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel(AXES[option])
    axes.grid(color="0.85")
