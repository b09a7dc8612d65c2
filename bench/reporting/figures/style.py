"""What all figures share.

Series differ in colour and in marker or hatch, so that they can be told apart without colour.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from textwrap import wrap

import matplotlib
import numpy as np
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import FontProperties, findfont, get_font

from bench.common.files import write_atomically
from bench.common.media import svg

# Okabe and Ito's colours, with grey for their yellow, which is lost on white paper.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#8C8C8C"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "*"]
HATCHES = ["", "//", "..", "\\\\", "xx", "--", "++", "oo"]
LINES = ["-", "--", "-.", ":"]
FONT = FontProperties(family="DejaVu Sans")  # Comes with matplotlib.
MOST_TICKS = 16  # Most ticks of an axis of whole numbers.
LONGEST_NAME = 48  # Characters of a name that a figure shows.
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "medusa-bench",  # The same numbers make the same file.
    "text.parse_math": False,  # A category may hold a dollar sign.
}
INTERVAL = "bars: 95 % intervals over questions, cut at the figure's edge"
# Times the largest value. An axis ends there, as intervals of few questions reach far.
FARTHEST = 2.5


@dataclass(frozen=True)
class Figure:
    """A figure on disk."""

    name: str  # The name of its files, without the ending.
    title: str
    caption: str
    path: Path  # The PNG. The SVG lies beside it.


@contextmanager
def canvas(
    folder: Path, name: str, width: float = 6.4, height: float = 3.8, **grid: object
) -> Iterator[tuple[Canvas, object]]:
    """A figure and its axes, which are saved as <folder>/<name>.png and .svg when the context ends.

    width, height: inches. grid: arguments of `plt.subplots`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **grid)
        try:
            yield figure, axes
            for ending, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
                content = BytesIO()
                figure.savefig(content, format=ending, **options)
                safe = svg(content.getvalue()) if ending == "svg" else content.getvalue()
                write_atomically(folder / f"{name}.{ending}", safe)
        finally:
            plt.close(figure)


@dataclass(frozen=True)
class Names:
    """Names as figures can show them.

    One that the font has no characters for becomes a number. So does one that begins with _, which
    matplotlib leaves out of legends, and one that is too long to leave room for the figure.
    """

    shown: dict[str, str]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """
        >>> names = Names.of(["math", "推理", "_old"])
        >>> names["math"], names["_old"], names.key
        ('math', '[2]', ' [1]: 推理, [2]: _old.')
        """
        glyphs = get_font(findfont(FONT)).get_charmap()
        shown: dict[str, str] = {}
        numbers = count(1)
        for name in dict.fromkeys(names):
            has_glyphs = all(ord(character) in glyphs for character in name)
            fits = len(name) <= LONGEST_NAME and not name.startswith("_")
            shown[name] = name if has_glyphs and fits else f"[{next(numbers)}]"
        return cls(shown)

    def __getitem__(self, name: str) -> str:
        return self.shown[name]

    @property
    def key(self) -> str:
        """What the numbers stand for, to be added to a caption. Empty: there are none."""
        numbered = [f"{short}: {name}" for name, short in self.shown.items() if short != name]
        return f" {', '.join(numbered)}." if numbered else ""


def line_style(at: int) -> dict[str, object]:
    """Colour, marker and line of series `at`, for `Axes.plot`.

    No two of the first 64 share both colour and marker.
    """
    return {
        "color": COLOURS[at % 8],
        "marker": MARKERS[(at + at // 8) % 8],
        "linestyle": LINES[at // 8 % 4],
        "markersize": 5.5,
        "markeredgecolor": "black",
        "markeredgewidth": 0.4,
    }


def bar_style(at: int) -> dict[str, object]:
    """Colour and hatch of series `at`, for `Axes.bar`."""
    colour = COLOURS[at % 8]
    return {
        "color": colour,
        "hatch": HATCHES[(at + at // 8) % 8],
        "edgecolor": "white" if colour == "#000000" else "black",  # Colours the hatch as well.
        "linewidth": 0.5,
    }


def legend(figure: Canvas, axes: Axes) -> None:
    """Put the legend above the axes, long labels on several lines.

    The figure grows by its height, so that the axes stay as large as they were.
    """
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    labels = ["\n".join(wrap(label, 46, break_on_hyphens=True)) for label in labels]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    characters = figure.get_figwidth() * 11  # Roughly as many fit beside each other.
    columns = max(1, min(len(labels), int(characters // (longest + 6))))
    rows = -(-len(labels) // columns)
    columns = -(-len(labels) // rows)  # So that no row is much shorter than the others.
    lines = sum(
        max(label.count("\n") + 1 for label in labels[at : at + columns])
        for at in range(0, len(labels), columns)
    )
    figure.set_figheight(figure.get_figheight() + 0.21 * (lines - 1))
    # matplotlib fills columns first; readers read rows.
    places = [row * columns + column for column in range(columns) for row in range(rows)]
    order = [place for place in places if place < len(labels)]
    figure.legend(
        [handles[place] for place in order],
        [labels[place] for place in order],
        loc="outside upper center",
        ncols=columns,
        frameon=False,
    )


def whole_ticks(most: int) -> list[int]:
    """Places of ticks from 1 to `most`, with room for their labels.

    >>> whole_ticks(5), whole_ticks(60)
    ([1, 2, 3, 4, 5], [1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57])
    """
    return list(range(1, most + 1, -(-most // MOST_TICKS)))


def dodged(series: int, at: int, width: float = 0.8) -> float:
    """Offset of series `at` of `series` from the middle of its group."""
    return (at - (series - 1) / 2) * width / series


def points(
    axes: Axes,
    groups: Sequence[str],
    series: Sequence[str],
    cell: Callable[[str, str], tuple[float, float, float]],
    styles: Sequence[int],
) -> None:
    """Draw a point with its interval for every group and series.

    cell: (group, series) -> (value, low, high). NaN: there is no such number.
    styles: [series] numbers for `line_style`.
    """
    drawn = np.array([[cell(group, name) for group in groups] for name in series])
    for at, name in enumerate(series):
        values = drawn[at]  # [groups, 3]
        places = np.arange(len(groups)) + dodged(len(series), at)
        style = line_style(styles[at]) | {"linestyle": "none", "elinewidth": 1.1}
        with_intervals(axes, places, values, label=name, **style)
    for at in range(0, len(groups), 2):
        axes.axvspan(at - 0.5, at + 0.5, color="0.95", zorder=0)
    is_crowded = len(groups) * max(map(len, groups)) > 11 * axes.figure.get_figwidth()
    axes.set_xticks(
        range(len(groups)),
        [shortened(group, 24) for group in groups],
        rotation=25 if is_crowded else 0,
        ha="right" if is_crowded else "center",
    )
    end_axis(axes, drawn[:, :, 0])
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.grid(axis="y", color="0.85")


def end_axis(axes: Axes, values: np.ndarray) -> None:
    """End the vertical axis at FARTHEST times the largest of the values. NaN: there is none.

    It begins at 0 or above where no value is below.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return
    bottom, top = axes.get_ylim()
    if known.min() >= 0:
        bottom = max(0.0, bottom)
    axes.set_ylim(bottom, min(top, FARTHEST * known.max()))


def shortened(text: str, length: int) -> str:
    """The text, or its beginning with an ellipsis: at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def with_intervals(
    axes: Axes,
    places: np.ndarray,
    values: np.ndarray,
    across: np.ndarray | None = None,
    **style: object,
) -> None:
    """Draw points at these places [n], with their intervals. A point without one is hollow.

    values: [n, 3] of (value, low, high), upwards. NaN: there is no such number. across: the same of
    `places`. None: these are exact. style: arguments of `Axes.errorbar`.
    """
    sideways = None if across is None else spread(across)
    axes.errorbar(places, values[:, 0], yerr=spread(values), xerr=sideways, capsize=2, **style)
    hollow = lacks_interval(values)
    if across is not None:
        hollow |= lacks_interval(across)
    if hollow.any():
        marks = {name: style[name] for name in ("color", "marker", "markersize")}
        edge = {"markerfacecolor": "white", "markeredgecolor": style["color"], "zorder": 3}
        axes.plot(np.asarray(places)[hollow], values[hollow, 0], linestyle="none", **marks | edge)


def spread(values: np.ndarray) -> np.ndarray:
    """Error bars as matplotlib wants them: [2, n] distances below and above, NaN where unknown.

    values: [n, 3] of (value, low, high).
    """
    value, low, high = values.T
    return np.clip(np.stack((value - low, high - value)), 0, None)


def lacks_interval(values: np.ndarray) -> np.ndarray:
    """[n] Is there a value without an interval? values: [n, 3] of (value, low, high)."""
    return np.isfinite(values[:, 0]) & ~np.isfinite(values[:, 1:]).all(1)


def interval_words(table: pd.DataFrame, columns: Sequence[str]) -> str:
    """What the intervals of these columns of a table are, for a caption.

    Each column has others beside it, with _low and _high.
    """
    for column in columns:
        ends = [column, f"{column}_low", f"{column}_high"]
        if lacks_interval(table[ends].to_numpy(float)).any():
            return f"{INTERVAL}; a hollow point has none: it is of one question, or of the baseline"
    return INTERVAL
