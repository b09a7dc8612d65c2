"""A candidate tree as a picture, and beside it the mask that verifies it.

Nodes go from left to right by depth. A node's first child is on the same row as the node, so that a
path reads as a line of text. Every row holds one leaf.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import FancyBboxPatch, Rectangle

KEPT = "#D55E00"
SHADE = (0.42, 0.68, 0.90)  # Colour of a path of probability 1; light enough for dark text.
MONOSPACE = FontProperties(family="DejaVu Sans Mono")  # Comes with matplotlib.
LABEL_SIZE, SMALL_SIZE = 9.0, 6.5  # Points.
# Width of a character in inches per point: 0.602 / 72, plus room for rounding to pixels.
CHARACTER = 0.645 / 72

# Lengths in inches.
ROW = 0.24
GAP = 0.34  # Between the boxes of two depths.
MARGIN = 0.15
HEAD, FOOT, BETWEEN = 0.85, 0.6, 0.75  # Above the tree, below it, and between tree and mask.
LEAST_WIDTH = 6.4
LEAST_SIDE, MOST_SIDE = 2.2, 6.0  # Limits of the mask's side.
SIDE_OF_NODE = 0.085


def rows_of(parent: Sequence[int]) -> list[int]:
    """The row of every node of a tree.

    >>> rows_of([0, 0, 0, 1, 1, 3])
    [0, 0, 2, 0, 1, 0]
    """
    children: list[list[int]] = [[] for _ in parent]
    for node, above in enumerate(parent[1:], start=1):
        children[above].append(node)
    rows, used = [0] * len(parent), 0
    # Depth first. A first child has its parent's row; the others (None) get the next free row.
    open_nodes: list[tuple[int, int | None]] = [(0, 0)]
    while open_nodes:
        node, row = open_nodes.pop()
        rows[node] = used if row is None else row
        used = max(used, rows[node] + 1)
        open_nodes += [(child, None) for child in reversed(children[node][1:])]
        open_nodes += [(child, rows[node]) for child in children[node][:1]]
    return rows


def ancestor_mask(parent: Sequence[int]) -> np.ndarray:
    """[nodes, nodes] bool: whether the column's node is the row's node or an ancestor of it.

    >>> ancestor_mask([0, 0, 0, 1]).astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    """
    mask = np.eye(len(parent), dtype=bool)
    for node, above in enumerate(parent):  # Parents stand before their children.
        mask[node] |= mask[above]
    return mask


def with_glyphs(text: str) -> str:
    """`text` in characters that the picture's font has. Others are written as their number."""
    glyphs = get_font(findfont(MONOSPACE)).get_charmap()
    return "".join(c if ord(c) in glyphs else f"U+{ord(c):04X}" for c in text)


@dataclass(frozen=True)
class _Layout:
    """Where the boxes of a tree stand, in inches from its top left corner."""

    parent: Sequence[int]
    labels: Sequence[str]
    notes: Sequence[str]  # [nodes] probability in per cent, or empty.
    depth: list[int]  # [nodes]
    rows: list[int]  # [nodes]
    widths: list[float]  # [depths] of the boxes.
    left: list[float]  # [depths] edge of the boxes.

    @classmethod
    def of(cls, parent: Sequence[int], labels: Sequence[str], notes: Sequence[str]) -> "_Layout":
        depth = [int(count) - 1 for count in ancestor_mask(parent).sum(1)]
        widths = [0.0] * (1 + max(depth))
        for node, label in enumerate(labels):  # A box holds number, label and probability.
            small = len(str(node)) + len(notes[node]) + 3
            width = CHARACTER * (LABEL_SIZE * len(label) + SMALL_SIZE * small)
            widths[depth[node]] = max(width, widths[depth[node]])
        left = [sum(widths[:level]) + GAP * level for level in range(len(widths))]
        return cls(parent, labels, notes, depth, rows_of(parent), widths, left)

    @property
    def width(self) -> float:
        return self.left[-1] + self.widths[-1]

    @property
    def height(self) -> float:
        return ROW * (max(self.rows) + 1)

    def box(self, node: int) -> tuple[float, float, float]:
        """(left, top, width) of a node's box."""
        level = self.depth[node]
        return self.left[level], ROW * self.rows[node], self.widths[level]


def tree_figure(
    parent: Sequence[int],
    labels: Sequence[str],
    prob: Sequence[float] | None = None,
    kept: Sequence[int] = (),
    title: str = "",
) -> Figure:
    """The picture of one tree.

    parent: [nodes]. labels: [nodes]. prob: [nodes] of the paths; None where there are none.
    kept: nodes of the accepted path, root included; empty where nothing was verified.
    """
    notes = [""] * len(labels) if prob is None else [percent(value) for value in prob]
    layout = _Layout.of(parent, [with_glyphs(label) for label in labels], notes)
    side = min(max(LEAST_SIDE, SIDE_OF_NODE * len(labels)), MOST_SIDE)
    width = max(2 * MARGIN + layout.width + BETWEEN + side, LEAST_WIDTH)
    height = HEAD + max(layout.height, side) + FOOT
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)

    def axes_at(x: float, wide: float, high: float, label: str) -> Axes:
        """Axes below the head, at inches from the left."""
        bottom = 1 - (HEAD + high) / height
        return figure.add_axes((x / width, bottom, wide / width, high / height), label=label)

    _write_head(figure, title, _legend(has_path=bool(kept), has_prob=prob is not None))
    axes = axes_at(MARGIN, layout.width, layout.height, "tree")
    axes.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    axes.axis("off")
    _draw_edges(axes, layout, kept)
    _draw_boxes(axes, layout, prob, kept)
    draw_mask(axes_at(MARGIN + layout.width + BETWEEN, side, side, "mask"), parent, kept)
    return figure


def _legend(has_path: bool, has_prob: bool) -> str:
    """What a box holds."""
    text = "number of the node, "
    text += "token" if has_path else "rank among its head's guesses"
    text += ", probability of the path in %" if has_prob else ""
    return text + ("; orange: accepted" if has_path else "")


def _write_head(figure: Figure, title: str, legend: str) -> None:
    width, height = figure.get_size_inches()
    left = MARGIN / width
    title_style = dict(size=11, weight="bold", parse_math=False)
    figure.text(left, 1 - 0.14 / height, with_glyphs(title), va="top", **title_style)
    figure.text(left, 1 - 0.36 / height, legend, va="top", size=8, color="0.35")


def _draw_edges(axes: Axes, layout: _Layout, kept: Sequence[int]) -> None:
    """The names of the depths, and a line from each node's parent to the node."""
    for level, x in enumerate(layout.left):
        name = f"depth {level}" if level else "root"
        axes.text(x + 0.03, -0.06, name, size=SMALL_SIZE + 0.5, color="0.4", va="bottom")
    for node in range(1, len(layout.labels)):
        above, is_kept = layout.parent[node], node in kept
        x, y, wide = layout.box(above)
        start, end = x + wide, layout.box(node)[0]
        before, after = y + ROW / 2, layout.box(node)[1] + ROW / 2
        axes.plot(
            [start, start + GAP / 2, start + GAP / 2, end],
            [before, before, after, after],
            clip_on=False,
            color=KEPT if is_kept else "0.7",
            linewidth=2.4 if is_kept else 0.8,
            zorder=2 if is_kept else 1,
        )


def _draw_boxes(
    axes: Axes, layout: _Layout, prob: Sequence[float] | None, kept: Sequence[int]
) -> None:
    """A box for each node: its number, its label and its path's probability."""
    style = dict(va="center_baseline", fontproperties=MONOSPACE, parse_math=False, zorder=4)
    for node, label in enumerate(layout.labels):
        x, y, wide = layout.box(node)
        is_kept = node in kept
        shade = 0.0 if prob is None else 0.75 * prob[node] ** 0.5
        box = FancyBboxPatch(
            (x + 0.02, y + 0.045),
            wide - 0.04,
            ROW - 0.09,
            boxstyle="round,pad=0.02",
            clip_on=False,
            zorder=3,
            facecolor=[1 - shade * (1 - c) for c in SHADE],
            edgecolor=KEPT if is_kept else "0.6",
            linewidth=2.2 if is_kept else 0.7,
        )
        axes.add_patch(box)
        number, note = str(node), layout.notes[node]
        start, middle, end = x + 0.045, y + ROW / 2, x + wide - 0.045
        after_number = start + CHARACTER * SMALL_SIZE * (len(number) + 0.7)
        axes.text(start, middle, number, size=SMALL_SIZE, color="0.4", **style)
        axes.text(after_number, middle, label, size=LABEL_SIZE, color="black", **style)
        axes.text(end, middle, note, size=SMALL_SIZE, color="0.25", ha="right", **style)


def draw_mask(axes: Axes, parent: Sequence[int], kept: Sequence[int] = ()) -> None:
    """What each node attends to: the cache (drawn as one column), its ancestors and itself.

    Rows of the accepted path are orange.
    """
    nodes = len(parent)
    cache = np.ones((nodes, 1), dtype=bool)
    attended = np.hstack([cache, ancestor_mask(parent)])  # [nodes, 1 + nodes]
    axes.imshow(
        np.where(attended, 0.62, 0.04),
        cmap="Greys",
        vmin=0,
        vmax=1,
        extent=(-1.5, nodes - 0.5, nodes - 0.5, -0.5),
        aspect="auto",
        interpolation="nearest",
    )
    for node in kept:
        for column in np.flatnonzero(attended[node]) - 1:
            corner = (column - 0.5, node - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=KEPT, edgecolor="none"))
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
    """A probability in per cent, with two digits where it is small.

    >>> percent(1.0), percent(0.234), percent(0.0312), percent(0.0004)
    ('100', '23', '3.1', '<0.1')
    """
    value = 100 * prob
    return "<0.1" if value < 0.1 else f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
