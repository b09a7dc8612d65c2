"""A candidate tree as a picture: its nodes from left to right by depth, and beside it the mask that verifies it.

A node's first child stands on its own row, so that a path reads as a line of text. Every row holds one leaf.
"""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch, Rectangle

from decoders.tree import Tree

KEPT = "#D55E00"
SHADE = (0.42, 0.68, 0.90)  # of the most probable path; light enough for dark text
MONOSPACE = FontProperties(family="DejaVu Sans Mono")  # comes with matplotlib
POINTS, SMALL = 9.0, 6.5
ROW, GAP, MARGIN = 0.24, 0.34, 0.15  # inches
EM = (
    0.645 / 72
)  # inches a character and point: its 0.602, and what rounding to whole pixels may add


def rows_of(parent: Sequence[int]) -> list[int]:
    """The row of every node of a tree.

    >>> rows_of([0, 0, 0, 1, 1, 3])
    [0, 0, 2, 0, 1, 0]
    """
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent[1:], start=1):
        children[above].append(node)
    rows, used, open_nodes = [0] * len(parent), 0, [(0, 0)]
    while (
        open_nodes
    ):  # depth first; the row is given where a node is a first child, else the next free one
        node, row = open_nodes.pop()
        rows[node] = used if row is None else row
        used = max(used, rows[node] + 1)
        open_nodes += [(child, None) for child in reversed(children[node][1:])]
        open_nodes += [(child, rows[node]) for child in children[node][:1]]
    return rows


def shown(text: str) -> str:
    """`text` in characters that the picture's font has; others by their number."""
    glyphs = get_font(findfont(MONOSPACE)).get_charmap()
    return "".join(c if ord(c) in glyphs else f"U+{ord(c):04X}" for c in text)


def tree_figure(
    parent: Sequence[int],
    labels: Sequence[str],
    prob: Sequence[float] | None = None,
    kept: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """The picture of one tree [nodes]: labels, the paths' probabilities where there are any, and the accepted path.

    kept: nodes of the accepted path, root included; empty where nothing was verified.
    """
    labels = [shown(label) for label in labels]
    tree = Tree.from_parent(list(parent))
    depth, rows = tree.depth.tolist(), rows_of(parent)
    notes = [""] * len(labels) if prob is None else [percent(each) for each in prob]
    widths = [0.0] * (1 + max(depth))  # of each depth's boxes: a number, a label and a probability
    for node, label in enumerate(labels):
        width = EM * (POINTS * len(label) + SMALL * (len(str(node)) + len(notes[node]) + 3))
        widths[depth[node]] = max(width, widths[depth[node]])
    left = [sum(widths[:d]) + GAP * d for d in range(len(widths))]
    tree_width, tree_height = left[-1] + widths[-1], ROW * (max(rows) + 1)
    side = min(max(2.2, 0.085 * len(labels)), 6.0)  # of the mask
    head, foot, between = 0.85, 0.6, 0.75
    figure = Figure(
        figsize=(
            max(2 * MARGIN + tree_width + between + side, 6.4),
            head + max(tree_height, side) + foot,
        )
    )
    FigureCanvasAgg(figure)
    width, height = figure.get_size_inches()

    def place(x: float, y: float, wide: float, high: float, label: str) -> Axes:
        """Axes at inches from the top left corner."""
        return figure.add_axes(
            (x / width, 1 - (y + high) / height, wide / width, high / height), label=label
        )

    legend = (
        "number of the node, token" if kept else "number of the node, rank among its head's guesses"
    )
    legend += ", probability of the path in %" if prob is not None else ""
    legend += "; orange: accepted" if kept else ""
    figure.text(
        MARGIN / width,
        1 - 0.14 / height,
        shown(title),
        va="top",
        size=11,
        weight="bold",
        parse_math=False,
    )
    figure.text(MARGIN / width, 1 - 0.36 / height, legend, va="top", size=8, color="0.35")

    axes = place(MARGIN, head, tree_width, tree_height, "tree")
    axes.set(xlim=(0, tree_width), ylim=(tree_height, 0))
    axes.axis("off")
    for d, x in enumerate(left):
        axes.text(
            x + 0.03,
            -0.06,
            f"depth {d}" if d else "root",
            size=SMALL + 0.5,
            color="0.4",
            va="bottom",
        )
    for node in range(1, len(labels)):
        above, bold = parent[node], node in kept
        start, end = left[depth[above]] + widths[depth[above]], left[depth[node]]
        before, after = (ROW * (rows[each] + 0.5) for each in (above, node))
        axes.plot([start, start + GAP / 2, start + GAP / 2, end], [before, before, after, after], clip_on=False,
                  color=KEPT if bold else "0.7", linewidth=2.4 if bold else 0.8, zorder=2 if bold else 1)  # fmt: skip
    text = dict(va="center_baseline", fontproperties=MONOSPACE, parse_math=False, zorder=4)
    for node, label in enumerate(labels):
        x, y, wide, bold = left[depth[node]], ROW * rows[node], widths[depth[node]], node in kept
        shade = 0.0 if prob is None else 0.75 * prob[node] ** 0.5
        box = FancyBboxPatch(
            (x + 0.02, y + 0.045),
            wide - 0.04,
            ROW - 0.09,
            boxstyle="round,pad=0.02",
            clip_on=False,
            zorder=3,
        )
        box.set(
            facecolor=[1 - shade * (1 - c) for c in SHADE],
            edgecolor=KEPT if bold else "0.6",
            linewidth=2.2 if bold else 0.7,
        )
        axes.add_patch(box)
        axes.text(x + 0.045, y + ROW / 2, str(node), size=SMALL, color="0.4", **text)
        axes.text(
            x + 0.045 + EM * SMALL * (len(str(node)) + 0.7),
            y + ROW / 2,
            label,
            size=POINTS,
            color="black",
            **text,
        )
        axes.text(
            x + wide - 0.045, y + ROW / 2, notes[node], size=SMALL, color="0.25", ha="right", **text
        )

    draw_mask(place(MARGIN + tree_width + between, head, side, side, "mask"), tree, kept)
    return figure


def draw_mask(axes: Axes, tree: Tree, kept: Sequence[int] = ()) -> None:
    """What each node attends to: the cache (one column here), its ancestors and itself; rows of the accepted path in orange."""
    nodes = len(tree)
    seen = (tree.mask(torch.float32, 1.0, committed=1) == 0).numpy()  # [nodes, 1 + nodes]
    axes.imshow(
        np.where(seen, 0.62, 0.04), cmap="Greys", vmin=0, vmax=1, extent=(-1.5, nodes - 0.5, nodes - 0.5, -0.5),
        aspect="auto", interpolation="nearest",
    )  # fmt: skip
    for node in kept:
        for column in np.flatnonzero(seen[node]) - 1:
            axes.add_patch(
                Rectangle((column - 0.5, node - 0.5), 1, 1, facecolor=KEPT, edgecolor="none")
            )
    axes.axvline(-0.5, color="white", linewidth=1.5)
    every = 1 if nodes <= 12 else 8 if nodes <= 80 else 32
    ticks = list(range(0, nodes, every))
    axes.set_xticks([-1, *ticks], ["cache", *map(str, ticks)], fontsize=7)
    axes.get_xticklabels()[0].set(rotation=90, va="top")
    axes.set_yticks(ticks, [str(tick) for tick in ticks], fontsize=7)
    axes.set_xlabel("may attend to node", fontsize=8)
    axes.set_ylabel("node", fontsize=8)
    axes.tick_params(length=2)


def percent(prob: float) -> str:
    """A probability in per cent, two digits where it is small.

    >>> percent(1.0), percent(0.234), percent(0.0312), percent(0.0004)
    ('100', '23', '3.1', '<0.1')
    """
    value = 100 * prob
    return "<0.1" if value < 0.1 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
