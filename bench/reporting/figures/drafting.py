"""Tokens per inference against what drafting costs, one point for each decoder."""

from pathlib import Path

import numpy as np
import pandas as pd

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


def draw_drafting(folder: Path, rows: pd.DataFrame) -> Figure:
    """Draw drafting.png and .svg into `folder`.

    rows: of `bench.reporting.drafting.drafting_rows`.
    """
    name = "drafting"
    names = Names.of(rows.decoder)
    columns = ["tokens_per_inference", "tokens_per_inference_low", "tokens_per_inference_high"]
    with canvas(folder, name, 6.4, 4.2) as (figure, axes):
        for at, row in enumerate(rows.to_dict("records")):
            values = np.array([[row[column] for column in columns]], dtype=float)
            style = line_style(at) | {"linestyle": "none", "markersize": 7, "elinewidth": 1}
            places = np.array([100 * row["drafting"]])
            with_intervals(axes, places, values, label=names[row["decoder"]], **style)
        end_axis(axes, rows[columns[0]].to_numpy(float))
        axes.set_xlim(left=0)
        axes.set_xlabel("drafting in a step (% of a greedy step)")
        axes.set_ylabel("tokens per inference\n(tokens / step)")
        axes.grid(color="0.85")
        legend(figure, axes)
    caption = (
        "Tokens per inference against the time that drafting takes in a step "
        f"({interval_words(rows, columns[:1])}). What verifying takes is not in it.{names.key}"
    )
    title = "Tokens per inference against drafting"
    return Figure(name, title, caption, folder / f"{name}.png")
