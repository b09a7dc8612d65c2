"""What a run shows, or several sources side by side: by category, accept lengths, acceptance by depth, along the answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench import metrics
from bench.reporting.figures.style import (
    INTERVAL,
    Figure,
    bar_style,
    canvas,
    dodged,
    legend,
    line_style,
    points,
    shortened,
)
from bench.reporting.figures.sweep import draw_sweeps


def draw_all(
    folder: Path,
    turns: pd.DataFrame,
    overall: pd.DataFrame,
    by_category: pd.DataFrame,
    baselines: Mapping[str, str | None],
    options: Mapping[str, Mapping],
) -> list[Figure]:
    """Every figure that the turns have numbers for, into `folder`.

    `overall`: a `metrics.decoder_row` for each label (`turns.decoder`); `by_category`: `metrics.by` of the categories;
    `baselines`: what each label is compared with; `options`: what its decoder was set to, which sweeps are found by.
    """
    labels = list(overall.decoder)
    table = overall.assign(category="all")
    if len(by_category) and by_category.category.nunique() > 1:
        table = pd.concat([table, by_category], ignore_index=True)
    made = [
        _tokens_per_inference(folder, table, labels),
        _wall_clock_ratio(folder, table, baselines),
    ]
    if turns.accept_lengths.notna().any():
        made += [
            _accept_lengths(folder, turns, labels),
            _by_depth(folder, turns, labels),
            _along(folder, turns, labels),
        ]
    made += draw_sweeps(folder, overall.set_index("decoder"), options)
    return [figure for figure in made if figure is not None]


def _tokens_per_inference(folder: Path, table: pd.DataFrame, labels: list[str]) -> Figure:
    name = "tokens_per_inference"
    _by_category(
        folder,
        name,
        table,
        labels,
        range(len(labels)),
        name,
        "tokens per inference\n(tokens / step)",
    )
    caption = f"Committed tokens / verify forwards, by category ({INTERVAL})."
    return Figure(name, "Tokens per inference", caption, folder / f"{name}.png")


def _wall_clock_ratio(
    folder: Path, table: pd.DataFrame, baselines: Mapping[str, str | None]
) -> Figure | None:
    """Without prefill where that is known, with it for answer files, which have no other time."""
    column = "wall_clock_ratio"
    if table[column].isna().all():
        column = "wall_clock_ratio_with_prefill"
    compared = [label for label, baseline in baselines.items() if baseline not in (None, label)]
    compared = [label for label in compared if table[table.decoder == label][column].notna().any()]
    if not compared:
        return None
    of = sorted({baselines[label] for label in compared})
    against = of[0] if len(of) == 1 else "the run's baseline"
    prefill = "without prefill" if column == "wall_clock_ratio" else "prefill included"
    styles = [list(baselines).index(label) for label in compared]
    name = "wall_clock_ratio"
    axis = f"wall-clock ratio\n(tokens/s over {shortened(against, 26)}'s)"
    _by_category(folder, name, table, compared, styles, column, axis)
    caption = f"Tokens per second over those of {against} on the same turns, {prefill}; above 1 is faster ({INTERVAL})."
    return Figure(name, "Wall-clock ratio", caption, folder / f"{name}.png")


def _by_category(
    folder: Path,
    name: str,
    table: pd.DataFrame,
    labels: list[str],
    styles: Sequence[int],
    column: str,
    axis: str,
) -> None:
    groups = list(dict.fromkeys(table.category))
    cells = {
        (row.category, row.decoder): (
            getattr(row, column),
            getattr(row, f"{column}_low"),
            getattr(row, f"{column}_high"),
        )
        for row in table.itertuples()
    }
    width = min(14.0, max(6.4, 1.6 + len(groups) * (0.75 + 0.09 * len(labels))))
    with canvas(folder, name, width, 4.0) as (figure, axes):
        points(
            axes,
            groups,
            labels,
            lambda group, label: cells.get((group, label), (np.nan,) * 3),
            styles,
        )
        axes.axvline(0.5, color="0.5", linewidth=0.8)
        if column != "tokens_per_inference":
            axes.axhline(1, color="0.2", linewidth=0.9)
        axes.set_ylabel(axis)
        axes.set_xlabel("category" if len(groups) > 1 else "")
        legend(figure, axes)


def _accept_lengths(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure:
    shares = {
        label: metrics.accept_length_histogram(turns[turns.decoder == label]) for label in labels
    }
    longest = max(len(share) for share in shares.values())
    name = "accept_lengths"
    with canvas(folder, name, min(14.0, max(6.4, 1.2 + longest * (0.5 + 0.09 * len(labels))))) as (
        figure,
        axes,
    ):
        for at, (label, share) in enumerate(shares.items()):
            places = share.index.to_numpy() + dodged(len(labels), at)
            axes.bar(
                places, 100 * share.to_numpy(), 0.8 / len(labels), label=label, **bar_style(at)
            )
        axes.set_xticks(range(1, longest + 1))
        axes.set_xlabel("accept length (tokens committed by a step)")
        axes.set_ylabel("share of steps (%)")
        axes.grid(axis="y", color="0.85")
        legend(figure, axes)
    return Figure(
        name, "Accept lengths", "How many of the steps committed 1, 2, 3, ... tokens; the mean is tokens per inference.",
        folder / f"{name}.png",
    )  # fmt: skip


def _by_depth(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure | None:
    tables = {label: metrics.acceptance_by_depth(turns[turns.decoder == label]) for label in labels}
    tables = {label: table for label, table in tables.items() if len(table)}
    if not tables:
        return None
    deepest = max(len(table) for table in tables.values())
    name = "acceptance_by_depth"
    with canvas(folder, name, 8.4, 3.8, ncols=2, sharey=True) as (figure, panels):
        titles = {"rate": "given that depth - 1 was kept", "share": "of all steps"}
        for axes, (column, title) in zip(panels, titles.items(), strict=True):
            for label, table in tables.items():
                places = table.depth + dodged(len(tables), list(tables).index(label), 0.25)
                axes.plot(
                    places, 100 * table[column], label=label, **line_style(labels.index(label))
                )
            axes.set_title(title, fontsize=10)
            axes.set_xticks(range(1, deepest + 1))
            axes.set_xlim(0.6, deepest + 0.4)
            axes.set_ylim(-3, 103)
            axes.set_xlabel("depth (tokens ahead of the root)")
            axes.grid(axis="y", color="0.85")
        panels[0].set_ylabel("drafted token kept (%)")
        legend(figure, panels[0])
    return Figure(
        name, "Acceptance by depth",
        "How often a drafted token is kept at each depth: given that the one before it was (the accuracy of that head as the "
        "run met it, within the tree), and of all steps.", folder / f"{name}.png",
    )  # fmt: skip


def _along(folder: Path, turns: pd.DataFrame, labels: list[str]) -> Figure | None:
    lines = {label: metrics.accept_length_along(turns[turns.decoder == label]) for label in labels}
    lines = {label: line for label, line in lines.items() if len(line) > 1}
    if not lines:
        return None
    name = "accept_length_along"
    with canvas(folder, name, 7.4) as (figure, axes):
        for label, line in lines.items():
            place = labels.index(label)
            every = max(1, len(line) // 12)
            axes.plot(
                line.index,
                line,
                label=label,
                markevery=(place * every // 8, every),
                **line_style(place),
            )
        axes.set_xlabel("place in the answer (tokens)")
        axes.set_ylabel(
            f"accept length (tokens / step),\nmean over {metrics.acceptance.WINDOW} tokens"
        )
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="0.85")
        legend(figure, axes)
    return Figure(
        name, "Accept length along the answer",
        f"Mean accept length of the steps within {metrics.acceptance.WINDOW // 2} tokens of each place, over all turns; a line "
        f"ends where fewer than {metrics.acceptance.FEWEST} steps are left.", folder / f"{name}.png",
    )  # fmt: skip
