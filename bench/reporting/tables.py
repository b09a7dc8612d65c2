"""Numbers as tables of text, and these tables as a terminal, a paper or a pull request wants them."""

import html
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.table import Table as RichTable

from bench import metrics
from bench.common.terminal import console, print_table
from bench.metrics import Estimate

NONE = "-"
SLOWER = 0.97  # wall-clock ratio below which a question counts as slower than the baseline
FORMATS = ("terminal", "markdown", "latex", "json")


@dataclass(frozen=True, eq=False)
class Table:
    """Cells as they are read. Columns that are NONE everywhere are left out when it is rendered."""

    title: str
    cells: pd.DataFrame  # of str
    caption: str = ""

    def shown(self) -> pd.DataFrame:
        return self.cells.loc[:, (self.cells != NONE).any()]

    def print(self) -> None:
        """On the terminal; intervals below their numbers where it is narrow."""
        out = RichTable(
            title=self.title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD
        )
        out.caption = self.caption or None
        cells = self.shown()
        for name in cells.columns:
            words = name in _WORDS
            out.add_column(
                name, justify="left" if words else "right", overflow="fold", no_wrap=not words
            )
        narrow = console().width < 125
        for row in cells.itertuples(index=False):
            out.add_row(*(cell.replace(" (", "\n(") if narrow else cell for cell in row))
        print_table(out)

    def markdown(self) -> str:
        cells = self.shown()
        lines = [f"**{escaped(self.title)}**", ""] if self.title else []
        lines.append("| " + " | ".join(map(escaped, cells.columns)) + " |")
        lines.append(
            "| " + " | ".join("---" if name in _WORDS else "---:" for name in cells.columns) + " |"
        )
        lines += [
            "| " + " | ".join(map(escaped, row)) + " |" for row in cells.itertuples(index=False)
        ]
        if self.caption:
            lines += ["", escaped(self.caption)]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A table environment; needs the booktabs package."""
        cells = self.shown()
        rows = [
            " & ".join(map(_latex, row)) + r" \\"
            for row in (cells.columns, *cells.itertuples(index=False))
        ]
        columns = "".join("l" if name in _WORDS else "r" for name in cells.columns)
        caption = ". ".join(_latex(text) for text in (self.title, self.caption) if text)
        return "\n".join(
            [
                r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule",
                rows[0], r"\midrule", *rows[1:], r"\bottomrule", r"\end{tabular}", r"\end{table}", "",
            ]
        )  # fmt: skip


_WORDS = ("decoder", "category", "in words", "accept length, %")


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: names come from strangers' files."""
    marked = "".join(f"\\{c}" if c in "\\|`*_[]" else c for c in " ".join(text.split()))
    return html.escape(marked, quote=False)


_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _latex(text: str) -> str:
    return " ".join(text.split()).translate(str.maketrans(_LATEX))


def headline(summary: pd.DataFrame) -> Table:
    """One row a decoder, of `metrics.decoder_row`s."""
    rows = []
    for row in summary.to_dict("records"):
        rows.append(
            {
                "decoder": row["decoder"],
                "turns": str(row["turns"]),
                "tokens/inference": _interval(_estimate(row, "tokens_per_inference"), "{:.3f}"),
                "TPI ratio": _number(row["tpi_ratio"], "{:.2f}x"),
                "tokens/s": _number(row["tokens_per_second"], "{:.1f}"),
                "tokens/s with prefill": _number(row["tokens_per_second_with_prefill"], "{:.1f}"),
                "wall-clock ratio": _wall_clock(row),
                "in words": _speed_in_words(row),
                "equal": f"{row['equal_answers']} of {row['compared_answers']}"
                if row["compared_answers"]
                else NONE,
            }
        )
    cells = pd.DataFrame(rows)
    if cells.turns.nunique() == 1:
        cells = cells.drop(columns="turns")
    against = summary.baseline.dropna().unique()
    caption = "in parentheses: 95 % intervals, bootstrap over questions"
    if len(against) == 1:
        caption += f"; ratios and equal answers: to {against[0]}"
    return Table("Comparison", cells, caption + _starred(cells))


def by_group(table: pd.DataFrame, column: str) -> Table:
    """Of `metrics.by`: the decoders of each category (or turn), one below the other."""
    rows = []
    for row in table.to_dict("records"):
        rows.append(
            {
                column: str(row[column]),
                "decoder": row["decoder"],
                "turns": str(row["turns"]),
                "tokens/inference": _interval(_estimate(row, "tokens_per_inference"), "{:.3f}"),
                "tokens/s": _number(row["tokens_per_second"], "{:.1f}"),
                "tokens/s with prefill": _number(row["tokens_per_second_with_prefill"], "{:.1f}"),
                "wall-clock ratio": _wall_clock(row),
            }
        )
    cells = pd.DataFrame(rows)
    return Table(f"By {column}", cells, _starred(cells).removeprefix("; "))


def by_question(ratios: Mapping[str, pd.Series], repeatability: Mapping[str, pd.Series]) -> Table:
    """Of `metrics.wall_clock_ratio_by_question` by decoder: how the ratios are spread, none empty, and the slowest.

    Below them the same of `metrics.repeatability_by_question` by baseline: how much of it is chance.
    """
    rows = []
    spread = {"least": 0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "most": 1}
    chance = {f"{baseline} against itself": ratio for baseline, ratio in repeatability.items()}
    for decoder, ratio in (*ratios.items(), *chance.items()):
        known = ratio.dropna()
        cells = {"decoder": decoder, "questions": str(len(known))}
        cells |= {name: _number(known.quantile(part), "{:.2f}x") for name, part in spread.items()}
        cells |= {
            f"below {SLOWER}x": str((known < SLOWER).sum()),
            "slowest question": str(known.idxmin()),
        }
        rows.append(cells)
    caption = "wall-clock ratio by question; of one that was answered several times, of the medians"
    if chance:
        caption += (
            "; against itself: every other answer to those between, which shows how much is chance"
        )
    return Table("By question", pd.DataFrame(rows), caption)


def acceptance(table: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """Of `metrics.acceptance_table`: one row a decoder, how often each depth is kept, and the accept lengths."""
    rows = []
    for row in summary.to_dict("records"):
        own = table[table.decoder == row["decoder"]] if len(table) else table
        cells = {"decoder": row["decoder"]}
        cells["accept length, %"] = (
            " ".join(f"{100 * share:.0f}" for share in row["accept_length_histogram"]) or NONE
        )
        for each in own.to_dict("records"):
            cells[f"depth {each['depth']}"] = _number(100 * each["rate"], "{:.1f}")
        rows.append(cells)
    caption = (
        "accept length: share of the steps that committed 1, 2, 3, ... tokens; depth d: % of the steps kept at depth d - 1 "
        "that are kept at d too, which is the accuracy of head d as the run met it, within the tree"
    )
    return Table("Acceptance", pd.DataFrame(rows).fillna(NONE), caption)


def spec_bench(rows: list[dict]) -> Table:
    cells = [
        {
            "decoder": row["decoder"],
            "mean accepted tokens": _number(row["mean_accepted_tokens"], "{:.3f}"),
            "tokens/s": _number(row["mean_tokens_per_second"], "{:.1f}"),
            "speed-up": _number(row["speed_up"], "{:.2f}x"),
        }
        for row in rows
    ]
    return Table(
        "As Spec-Bench computes it",
        pd.DataFrame(cells),
        "averages over questions, not pooled; times with prefill",
    )


def verdicts(turns: pd.DataFrame, summary: pd.DataFrame, one_machine: bool) -> list[str]:
    """What leads, by how much over the next, and whether that is more than chance; nothing for a single decoder.

    Only where all times are of `one_machine` is a speed said to lead.
    """
    said = []
    leads = [("tokens per inference", "tokens_per_inference", "tpi_ratio", "{:.3f}")]
    if one_machine:
        leads.append(("tokens per second", "tokens_per_second", "wall_clock_ratio", "{:.1f}"))
    for what, column, ratio, unit in leads:
        order = summary[summary[column].notna()].sort_values(column, ascending=False)
        if len(order) < 2:
            continue
        first, second = order.decoder.iloc[0], order.decoder.iloc[1]
        estimate = metrics.estimates(turns, first, second)[ratio]
        if pd.isna(estimate.value):
            continue
        words = f", {estimate.words}" if estimate.words == "no significant difference" else ""
        if pd.notna(estimate.low):
            words = f" (95 %: {estimate.low:.2f} to {estimate.high:.2f}){words}"
        said.append(
            f"most {what}: {first} with {unit.format(order[column].iloc[0])}, {estimate.value:.2f}x {second}'s{words}"
        )
    return said


def _wall_clock_column(row: dict) -> str:
    """Without prefill where that is known; an answer file has no other time than that with it."""
    return (
        "wall_clock_ratio" if pd.notna(row["wall_clock_ratio"]) else "wall_clock_ratio_with_prefill"
    )


def _wall_clock(row: dict) -> str:
    column = _wall_clock_column(row)
    text = _interval(_estimate(row, column), "{:.2f}x")
    return text if column == "wall_clock_ratio" or text == NONE else f"{text}*"


def _starred(cells: pd.DataFrame) -> str:
    return (
        "; * prefill included: the files have no other time"
        if cells["wall-clock ratio"].str.endswith("*").any()
        else ""
    )


def _speed_in_words(row: dict) -> str:
    words = _estimate(row, _wall_clock_column(row)).words
    return {"higher": "faster", "lower": "slower", "unknown": NONE}.get(words, words)


def _estimate(row: dict, name: str) -> Estimate:
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _number(value: float, form: str) -> str:
    return NONE if pd.isna(value) else form.format(value)


def _interval(estimate: Estimate, form: str) -> str:
    if pd.isna(estimate.value):
        return NONE
    if pd.isna(estimate.low) or estimate.low == estimate.high:
        return form.format(estimate.value)
    bare = form.removesuffix("x")
    return (
        f"{form.format(estimate.value)} ({bare.format(estimate.low)}, {bare.format(estimate.high)})"
    )
