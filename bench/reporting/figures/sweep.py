"""Tokens per inference and speed against an option that differs between decoders: nodes, topk, depth, temperature."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pandas as pd

from bench.reporting.figures.style import (
    INTERVAL,
    Figure,
    canvas,
    dodged,
    legend,
    line_style,
    spread,
)

AXES = {
    "nodes": "nodes (root included)",
    "topk": "topk (guesses taken from each head)",
    "depth": "depth (levels below the root)",
    "temperature": "temperature",
}
Series = dict[
    str, list[tuple[float, str]]
]  # name of a line -> its (value of the option, label), ascending


def sweeps(options: Mapping[str, Mapping]) -> dict[str, Series]:
    """The options that are swept: those that take several numbers while all others stay as they are.

    >>> sweeps({"d:nodes=8": {"decoder": "d", "nodes": 8}, "d": {"decoder": "d", "nodes": 64}, "g": {"decoder": "g"}})
    {'nodes': {'d': [(8.0, 'd:nodes=8'), (64.0, 'd')]}}
    """
    found: dict[str, Series] = {}
    for option in AXES:
        groups: dict[tuple, dict[float, str]] = {}
        for label, own in options.items():
            try:
                value = float(own[option])
            except (
                KeyError,
                TypeError,
                ValueError,
            ):  # this decoder has no such option, or it is "auto" or by category
                continue
            others = tuple((name, each) for name, each in own.items() if name != option)
            groups.setdefault(others, {}).setdefault(value, label)
        lines = {
            others: sorted(values.items()) for others, values in groups.items() if len(values) > 1
        }
        if lines:
            found[option] = {_name(others, lines): line for others, line in lines.items()}
    return found


def _name(own: tuple, lines: Mapping[tuple, object]) -> str:
    """The decoder, and the options in which the lines differ."""
    decoder = dict(own)["decoder"]
    rivals = [dict(each) for each in lines if dict(each)["decoder"] == decoder]
    differing = [
        f"{name}={value}" for name, value in own if any(each.get(name) != value for each in rivals)
    ]
    return " ".join([decoder, *differing])


def draw_sweeps(folder: Path, table: pd.DataFrame, options: Mapping[str, Mapping]) -> list[Figure]:
    """A figure for every option that is swept. `table`: one row a label, as `metrics.by` gives it."""
    return [
        _draw(folder, table, option, series)
        for option, series in sweeps(
            {label: options[label] for label in table.index if label in options}
        ).items()
    ]


def _draw(folder: Path, table: pd.DataFrame, option: str, series: Series) -> Figure:
    labels = [label for line in series.values() for _, label in line]
    timed = table.loc[labels, "wall_clock_ratio"].notna().any()
    columns = {"tokens_per_inference": "tokens per inference\n(tokens / step)"}
    if timed:
        columns["wall_clock_ratio"] = "wall-clock ratio\n(tokens/s over the baseline's)"
    ticks = sorted({value for line in series.values() for value, _ in line})
    least = min(after - before for before, after in pairwise(ticks))
    logarithmic = option in ("nodes", "topk")
    name = f"sweep_{option}"
    with canvas(folder, name, 4.6 * len(columns), 3.8, ncols=len(columns), squeeze=False) as (
        figure,
        panels,
    ):
        for axes, (column, axis) in zip(panels[0], columns.items(), strict=True):
            for at, (line, places) in enumerate(series.items()):
                values = table.loc[
                    [label for _, label in places], [column, f"{column}_low", f"{column}_high"]
                ].to_numpy(float)
                aside = dodged(
                    len(series), at, min(0.2, 0.03 * len(series))
                )  # equal values would hide each other's intervals
                axes.errorbar(
                    [value * 2**aside if logarithmic else value + aside * least for value, _ in places],
                    values[:, 0], yerr=spread(values), label=line, capsize=2, elinewidth=1, **line_style(at),
                )  # fmt: skip
            if logarithmic:
                axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{value:g}" for value in ticks], minor=False)
            axes.minorticks_off()
            axes.set_xlabel(AXES[option])
            axes.set_ylabel(axis)
            axes.grid(color="0.85")
            if column == "wall_clock_ratio":
                axes.axhline(1, color="0.2", linewidth=0.9)
        legend(figure, panels[0][0])
    what = "Tokens per inference and wall-clock ratio" if timed else "Tokens per inference"
    return Figure(
        name,
        f"{what} against {option}",
        f"{what} against {AXES[option]} ({INTERVAL}).",
        folder / f"{name}.png",
    )
