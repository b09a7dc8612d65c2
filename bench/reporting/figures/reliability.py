"""Whether a decoder's own probabilities hold: how often nodes are accepted against what was predicted of them."""

from pathlib import Path

import numpy as np

from bench.reporting.figures.style import Figure, canvas, line_style

EDGES = np.concatenate(([0.0], np.geomspace(1e-3, 1.0, 16)))


def draw_reliability(folder: Path, predicted: np.ndarray, accepted: np.ndarray) -> Figure:
    """reliability.png and .svg in `folder`, from probabilities [n] of drafted nodes and whether each was accepted [n]."""
    name = "reliability"
    bins = np.clip(np.digitize(predicted, EDGES[1:-1]), 0, len(EDGES) - 2)
    counts = np.bincount(bins, minlength=len(EDGES) - 1)
    used = counts > 0
    mean = np.bincount(bins, predicted, len(counts))[used] / counts[used]
    share = np.bincount(bins, accepted, len(counts))[used] / counts[used]
    error = 1.96 * np.sqrt(share * (1 - share) / counts[used])
    with canvas(folder, name, 5.6, 6.2, nrows=2, sharex=True, height_ratios=[3, 1]) as (
        _,
        (axes, below),
    ):
        axes.plot([1e-4, 1], [1e-4, 1], color="0.6", linewidth=1, label="as predicted")
        shown = share > 0
        axes.errorbar(
            mean[shown],
            share[shown],
            error[shown],
            capsize=2,
            **line_style(0),
            label="drafted nodes",
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(1e-4, 1.5)
        axes.set_ylabel("share that was accepted")
        axes.grid(color="0.85")
        axes.legend(frameon=False, loc="upper left")
        below.bar(mean, counts[used], 0.25 * mean, color="0.6")
        below.set_yscale("log")
        below.set_ylabel("nodes")
        for axis in (axes.xaxis, axes.yaxis, below.xaxis, below.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter("")
        below.set_xlabel("probability that the decoder gave a node")
    caption = (
        f"{len(predicted):,} drafted nodes by the probability that the decoder gave them, against how many of them were "
        "accepted; bars: 95 % intervals, nodes taken as independent."
    )
    return Figure(name, "Do the predicted probabilities hold?", caption, folder / f"{name}.png")
