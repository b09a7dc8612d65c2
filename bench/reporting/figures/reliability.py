"""Reliability of a decoder's probabilities: how often nodes are accepted, against them."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from bench.reporting.figures.style import Figure, canvas, line_style

EDGES = np.concatenate(([0.0], np.geomspace(1e-3, 1.0, 16)))  # Edges of the bins.


def draw_reliability(folder: Path, predicted: np.ndarray, accepted: np.ndarray) -> Figure:
    """Draw reliability.png and .svg into `folder`.

    predicted: [n] probabilities of drafted nodes. accepted: [n] whether each was accepted.
    """
    name = "reliability"
    bins = np.clip(np.digitize(predicted, EDGES[1:-1]), 0, len(EDGES) - 2)
    counts = np.bincount(bins, minlength=len(EDGES) - 1)
    used = counts > 0
    mean = np.bincount(bins, predicted, len(counts))[used] / counts[used]
    share = np.bincount(bins, accepted, len(counts))[used] / counts[used]
    grid = dict(nrows=2, sharex=True, height_ratios=[3, 1])
    with canvas(folder, name, 5.6, 6.2, **grid) as (_, (above, below)):
        _draw_shares(above, mean, share, counts[used])
        below.bar(mean, counts[used], 0.25 * mean, color="0.6")
        below.set_yscale("log")
        below.set_ylabel("nodes")
        below.set_xlabel("probability that the decoder gave a node")
        for axis in (above.xaxis, above.yaxis, below.xaxis, below.yaxis):
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter("")
    caption = (
        f"{len(predicted):,} drafted nodes by the probability that the decoder gave them, against "
        "how many of them were accepted; bars: 95 % intervals (Wilson's), nodes taken as "
        "independent."
    )
    return Figure(name, "Do the predicted probabilities hold?", caption, folder / f"{name}.png")


def wilson(share: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of Wilson's 95 % interval of a share [n] of counts [n]. They lie within 0 and 1."""
    z_squared = 1.96**2
    middle = share + z_squared / (2 * counts)
    half = 1.96 * np.sqrt(share * (1 - share) / counts + z_squared / (4 * counts**2))
    scale = 1 + z_squared / counts
    return (middle - half) / scale, (middle + half) / scale


def _draw_shares(axes: Axes, mean: np.ndarray, share: np.ndarray, counts: np.ndarray) -> None:
    """Accepted share against mean probability, both of each bin, on logarithmic axes."""
    low, high = wilson(share, counts)
    axes.plot([1e-4, 1], [1e-4, 1], color="0.6", linewidth=1, label="as predicted")
    some = share > 0  # A logarithmic axis cannot show 0.
    style = line_style(0) | {"capsize": 2, "label": "drafted nodes"}
    error = (share - low)[some], (high - share)[some]
    axes.errorbar(mean[some], share[some], error, **style)
    if not some.all():
        axes.plot(mean[~some], high[~some], "v", color="0.4", label="none accepted: upper bound")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 1.5)
    axes.set_ylabel("share that was accepted")
    axes.grid(color="0.85")
    axes.legend(frameon=False, loc="upper left")
