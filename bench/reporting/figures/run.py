"""Figures of a run, or of several sources side by side.

They show numbers by category, accept lengths, acceptance by depth and along the answer.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from bench import metrics
from bench.metrics.acceptance import FEWEST
from bench.reporting.figures.style import (
    MOST_TICKS,
    Figure,
    Names,
    bar_style,
    canvas,
    dodged,
    interval_words,
    legend,
    line_style,
    points,
    shortened,
    whole_ticks,
)
from bench.reporting.figures.sweep import draw_sweeps

MOST_LENGTHS = 24  # Accept lengths from here on share a bar.


def draw_all(
    folder: Path,
    turns: pd.DataFrame,
    overall: pd.DataFrame,
    by_category: pd.DataFrame,
    baselines: Mapping[str, str | None],
    options: Mapping[str, Mapping],
    unranked: Collection[str] = (),
) -> list[Figure]:
    """Draw every figure that the turns have numbers for into `folder`.

    turns: a frame whose `decoder` holds labels. overall: a `metrics.decoder_row` for each label.
    by_category: of `metrics.by`. baselines: label -> the label that it is compared with. options:
    label -> its decoder's name and options, which tell what is swept. unranked: labels that are not
    said to be faster or slower.
    """
    texts = [value for own in options.values() for value in own.values() if isinstance(value, str)]
    names = Names.of([*overall.decoder, *by_category.get("category", ()), *texts])
    turns, overall, by_category = (
        _renamed(table, names) for table in (turns, overall, by_category)
    )
    baselines = {names[label]: base and names[base] for label, base in baselines.items()}
    unranked = {names[label] for label in unranked}
    options = {
        names[label]: {
            name: names[value] if isinstance(value, str) else value for name, value in own.items()
        }
        for label, own in options.items()
        if label in names.shown
    }
    labels = list(overall.decoder)
    table = overall.assign(category="all")
    if len(by_category) and by_category.category.nunique() > 1:
        table = pd.concat([table, by_category], ignore_index=True)
    made = [
        _tokens_per_inference(folder, table, labels),
        _wall_clock_ratio(folder, table, baselines, unranked),
    ]
    if turns.accept_lengths.notna().any():
        made += [
            _accept_lengths(folder, turns, labels),
            _by_depth(folder, turns, labels),
            _along(folder, turns, labels),
        ]
    made += draw_sweeps(folder, overall.set_index("decoder"), options)
    return [
        replace(figure, caption=figure.caption + names.key) for figure in made if figure is not None
    ]


def _renamed(table: pd.DataFrame, names: Names) -> pd.DataFrame:
    """The same table with decoders and categories as figures show them."""
    shown = {
        column: table[column].map(names.shown)
        for column in ("decoder", "category")
        if column in table
    }
    return table.assign(**shown)


def _tokens_per_inference(folder: Path, table: pd.DataFrame, labels: list[str]) -> Figure:
    name = "tokens_per_inference"
    axis_label = "tokens per inference\n(tokens / step)"
    _by_category(folder, name, table, labels, range(len(labels)), name, axis_label)
    caption = f"Committed tokens / verify forwards, by category ({interval_words(table, [name])})."
    return Figure(name, "Tokens per inference", caption, folder / f"{name}.png")


def _wall_clock_ratio(
    folder: Path,
    table: pd.DataFrame,
    baselines: Mapping[str, str | None],
    unranked: Collection[str],
) -> Figure | None:
    """Draw the ratios of whole turns to the baselines. None: nothing to compare."""
    column = "wall_clock_ratio_with_prefill"
    known = set(table.decoder[table[column].notna()])
    compared = [
        label
        for label, baseline in baselines.items()
        if baseline not in (None, label) and label in known
    ]
    if not compared:
        return None
    others = sorted({baselines[label] for label in compared})
    against = others[0] if len(others) == 1 else "the run's baseline"
    styles = [list(baselines).index(label) for label in compared]
    name = "wall_clock_ratio"
    axis_label = f"wall-clock ratio\n(tokens/s over {shortened(against, 26)}'s)"
    _by_category(folder, name, table, compared, styles, column, axis_label)
    shown = table[table.decoder.isin(compared)]
    not_alike = [label for label in compared if label in unranked]
    words = ["above 1 is faster"] if len(not_alike) < len(compared) else []
    if not_alike:
        words.append(f"not alike, and not ranked: {', '.join(not_alike)}")
    caption = (
        f"Tokens per second over those of {against} on the same turns, prefill included; "
        f"{'; '.join(words)} ({interval_words(shown, [column])})."
    )
    return Figure(name, "Wall-clock ratio", caption, folder / f"{name}.png")


def _by_category(
    folder: Path,
    name: str,
    table: pd.DataFrame,
    labels: list[str],
    styles: Sequence[int],
    column: str,
    axis_label: str,
) -> None:
    """Draw a column of the table by category. styles: [labels] numbers for `line_style`."""
    groups = list(dict.fromkeys(table.category))
    cells = {
        (row["category"], row["decoder"]): (
            row[column],
            row[f"{column}_low"],
            row[f"{column}_high"],
        )
        for row in table.to_dict("records")
    }
    unknown = (np.nan,) * 3
    width = min(14.0, max(6.4, 1.6 + len(groups) * (0.75 + 0.09 * len(labels))))
    with canvas(folder, name, width, 4.0) as (figure, axes):
        points(axes, groups, labels, lambda *place: cells.get(place, unknown), styles)
        axes.axvline(0.5, color="0.5", linewidth=0.8)
        if column != "tokens_per_inference":
            axes.axhline(1, color="0.2", linewidth=0.9)
        axes.set_ylabel(axis_label)
        axes.set_xlabel("category" if len(groups) > 1 else "")
        legend(figure, axes)


def _accept_lengths(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure:
    shares = {
        label: metrics.accept_length_histogram(turns[turns.decoder == label]) for label in labels
    }
    shares = {label: _pooled_tail(share) for label, share in shares.items()}
    longest = max(len(share) for share in shares.values())
    name = "accept_lengths"
    width = min(14.0, max(6.4, 1.2 + longest * (0.5 + 0.09 * len(labels))))
    with canvas(folder, name, width) as (figure, axes):
        for at, (label, share) in enumerate(shares.items()):
            places = share.index.to_numpy() + dodged(len(labels), at)
            style = bar_style(at) | {"label": label}
            axes.bar(places, 100 * share.to_numpy(), 0.8 / len(labels), **style)
        ticks = whole_ticks(longest)
        if longest == MOST_LENGTHS:
            ticks[-1] = longest
        axes.set_xticks(ticks, [f"{n}+" if n == MOST_LENGTHS else str(n) for n in ticks])
        axes.set_xlabel("accept length (tokens committed by a step)")
        axes.set_ylabel("share of steps (%)")
        axes.grid(axis="y", color="0.85")
        legend(figure, axes)
    caption = (
        "How many of the steps committed 1, 2, 3, ... tokens; the mean is tokens per inference."
    )
    return Figure(name, "Accept lengths", caption, folder / f"{name}.png")


def _pooled_tail(share: pd.Series) -> pd.Series:
    """Shares of accept lengths, in which MOST_LENGTHS stands for all that are as long or longer."""
    short = share[share.index < MOST_LENGTHS]
    tail = share[share.index >= MOST_LENGTHS]
    return pd.concat([short, pd.Series({MOST_LENGTHS: tail.sum()})]) if len(tail) else short


def _by_depth(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure | None:
    """Draw acceptance by depth. None: no decoder has a depth that was tried often enough."""
    tables = {label: metrics.acceptance_by_depth(turns[turns.decoder == label]) for label in labels}
    tables = {label: table[table.tried >= FEWEST] for label, table in tables.items()}
    tables = {label: table for label, table in tables.items() if len(table)}
    if not tables:
        return None
    deepest = max(table.depth.max() for table in tables.values())
    name = "acceptance_by_depth"
    titles = {"rate": "given that depth - 1 was kept", "share": "of all steps"}
    with canvas(folder, name, 8.4, 3.8, ncols=2, sharey=True) as (figure, panels):
        for axes, (column, title) in zip(panels, titles.items(), strict=True):
            for at, (label, table) in enumerate(tables.items()):
                places = table.depth + dodged(len(tables), at, 0.25)
                style = line_style(labels.index(label)) | {"label": label}
                style["markevery"] = max(1, len(table) // MOST_TICKS)
                axes.plot(places, 100 * table[column], **style)
            axes.set_title(title, fontsize=10)
            axes.set_xticks(whole_ticks(deepest))
            axes.set_xlim(0.6, deepest + 0.4)
            axes.set_ylim(-3, 103)
            axes.set_xlabel("depth (tokens ahead of the root)")
            axes.grid(axis="y", color="0.85")
        panels[0].set_ylabel("drafted token kept (%)")
        legend(figure, panels[0])
    caption = (
        "How often a drafted token is kept at each depth: given that the one before it was (of "
        "static and dynamic: how often the tree held the right guess of that head), and of all "
        f"steps. A line ends where fewer than {FEWEST} steps could have kept one."
    )
    return Figure(name, "Acceptance by depth", caption, folder / f"{name}.png")


def _along(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure | None:
    """Draw the accept length along the answer. None: no decoder has enough steps."""
    window = metrics.window_of(turns)
    lines = {
        label: metrics.accept_length_along(turns[turns.decoder == label], window)
        for label in labels
    }
    lines = {label: line for label, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    name = "accept_length_along"
    with canvas(folder, name, 7.4) as (figure, axes):
        for label, line in lines.items():
            at = labels.index(label)
            every = max(1, len(line) // 12)  # Tokens between two markers.
            markers = (at * every // 8, every)
            axes.plot(line.index, line, label=label, markevery=markers, **line_style(at))
        axes.set_xlabel("place in the answer (tokens)")
        axes.set_ylabel(f"accept length (tokens / step),\nmean over {window} tokens")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="0.85")
        legend(figure, axes)
    caption = (
        f"Mean accept length of the steps within {window // 2} tokens of each place, over all "
        f"turns; a line ends where fewer than {FEWEST} steps are left."
    )
    return Figure(name, "Accept length along the answer", caption, folder / f"{name}.png")
