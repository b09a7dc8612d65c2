"""Speed against judged quality, one point a model."""

from pathlib import Path

import numpy as np
import pandas as pd

from bench.reporting.figures.style import Figure, canvas, legend, line_style, spread

_AXES = {
    "tokens_per_inference": "tokens per inference\n(tokens / step)",
    "wall_clock_ratio": "wall-clock ratio\n(tokens/s over the baseline's)",
}


def draw_quality(folder: Path, table: pd.DataFrame, baseline: str) -> Figure | None:
    """quality.png and .svg in `folder`; None where no model has both a grade and a speed.

    `table`: a row a model with quality, tokens_per_inference and wall_clock_ratio, each with _low and _high.
    """
    columns = [column for column in _AXES if table[column].notna().any()]
    if not columns:
        return None
    name = "quality"
    with canvas(folder, name, 1.2 + 4.2 * len(columns), 4.2, ncols=len(columns), squeeze=False) as (
        figure,
        panels,
    ):
        for axes, column in zip(panels[0], columns, strict=True):
            for at, (model, each) in enumerate(table.to_dict("index").items()):
                if pd.isna(each[column]):
                    continue
                across, up = (
                    spread(np.array([[each[part], each[f"{part}_low"], each[f"{part}_high"]]]))
                    for part in ("quality", column)
                )
                axes.errorbar(
                    each["quality"], each[column], xerr=across, yerr=up, label=model, capsize=2, elinewidth=1,
                    **line_style(at) | {"linestyle": "none", "markersize": 7},
                )  # fmt: skip
            if column == "wall_clock_ratio":
                axes.axhline(1, color="0.2", linewidth=0.9)
            axes.set_xlabel("judged quality (grade, 1 to 10)")
            axes.set_ylabel(_AXES[column])
            axes.grid(color="0.85")
        legend(figure, panels[0][-1] if len(columns) == 1 else panels[0][0])
    caption = (
        "Speed against the mean grade; bars: 95 % intervals, bootstrap over questions. "
        f"Wall-clock ratios, prefill included, are to {baseline}."
    )
    return Figure(name, "Speed against judged quality", caption, folder / f"{name}.png")
