"""Speed against judged quality, one point for each model."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bench.reporting.figures.style import (
    Figure,
    Names,
    canvas,
    end_axis,
    interval_words,
    legend,
    line_style,
    with_intervals,
)

_AXES = {
    "tokens_per_inference": "tokens per inference\n(tokens / step)",
    "wall_clock_ratio": "wall-clock ratio\n(tokens/s over the baseline's)",
}


def draw_quality(folder: Path, table: pd.DataFrame, baseline: str) -> Figure | None:
    """Draw quality.png and .svg into `folder`. None: no model has both a grade and a speed.

    A model whose speed is not known, such as a plain one that was judged alone, is a line at its
    quality.

    table: one row for each model (its index), with the columns quality, tokens_per_inference and
    wall_clock_ratio, each with _low and _high.
    """
    columns = [column for column in _AXES if table[column].notna().any()]
    if not columns:
        return None
    name = "quality"
    grid = dict(ncols=len(columns), squeeze=False)
    names = Names.of(table.index)
    table = table.rename(index=names.shown)
    with canvas(folder, name, 1.2 + 4.2 * len(columns), 4.2, **grid) as (figure, panels):
        for axes, column in zip(panels[0], columns, strict=True):
            _draw_points(axes, table, column)
        legend(figure, panels[0][0])
    words = interval_words(table[table[columns].notna().any(axis=1)], ["quality", *columns])
    caption = (
        f"Speed against the mean grade; {words}. Wall-clock ratios, prefill included, are to "
        f"{baseline}.{names.key}"
    )
    return Figure(name, "Speed against judged quality", caption, folder / f"{name}.png")


def _draw_points(axes: Axes, table: pd.DataFrame, column: str) -> None:
    for at, (model, row) in enumerate(table.to_dict("index").items()):
        if pd.isna(row[column]):
            style = {"color": line_style(at)["color"], "linestyle": ":", "zorder": 1}
            axes.axvline(row["quality"], label=f"{model} (speed not known)", **style)
            continue
        across, up = (
            np.array([[row[name], row[f"{name}_low"], row[f"{name}_high"]]], dtype=float)
            for name in ("quality", column)
        )
        style = line_style(at) | {"linestyle": "none", "markersize": 7, "elinewidth": 1}
        with_intervals(axes, across[:, 0], up, across, label=model, **style)
    end_axis(axes, table[column].to_numpy(float))
    if column == "wall_clock_ratio":
        axes.axhline(1, color="0.2", linewidth=0.9)
    axes.set_xlabel("judged quality (grade, 1 to 10)")
    axes.set_ylabel(_AXES[column])
    axes.grid(color="0.85")
