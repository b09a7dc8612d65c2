"""Tables of text, made from numbers, for a terminal, a paper or a pull request."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from rich import box
from rich.table import Table as RichTable

from bench import metrics
from bench.common import media
from bench.common.terminal import console, print_table
from bench.metrics import Estimate

NONE = "-"  # The text of a number that is unknown.
SLOWER = 0.97  # Wall-clock ratio. Below it, a question counts as slower than the baseline.
NARROW = 125  # Columns. On a narrower terminal, intervals go below their numbers.
TEXT_COLUMNS = ("decoder", "category", "in words", "accept length, %")  # The others are numbers.


@dataclass(frozen=True, eq=False)
class Table:
    """A table of text."""

    title: str
    cells: pd.DataFrame  # Of str. Its columns are the headings.
    caption: str = ""

    def used_cells(self) -> pd.DataFrame:
        """The cells without columns that are NONE everywhere."""
        return self.cells.loc[:, (self.cells != NONE).any()]

    def print(self) -> None:
        """Print it on the terminal."""
        out = RichTable(
            title=self.title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD
        )
        out.caption = self.caption or None
        cells = self.used_cells()
        for name in cells.columns:
            is_text = name in TEXT_COLUMNS
            justify = "left" if is_text else "right"
            out.add_column(name, justify=justify, overflow="fold", no_wrap=not is_text)
        is_narrow = console().width < NARROW
        for row in cells.itertuples(index=False):
            out.add_row(*(cell.replace(" (", "\n(") if is_narrow else cell for cell in row))
        print_table(out)

    def markdown(self) -> str:
        cells = self.used_cells()
        rules = ["---" if name in TEXT_COLUMNS else "---:" for name in cells.columns]
        rows = [list(map(media.markdown, row)) for row in cells.itertuples(index=False)]
        lines = [f"**{media.markdown(self.title)}**", ""] if self.title else []
        for row in (list(map(media.markdown, cells.columns)), rules, *rows):
            lines.append("| " + " | ".join(row) + " |")
        if self.caption:
            lines += ["", media.markdown(self.caption)]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """A table environment. It needs the booktabs package."""
        cells = self.used_cells()
        heading, *rows = (
            " & ".join(map(media.latex, row)) + r" \\"
            for row in (cells.columns, *cells.itertuples(index=False))
        )
        columns = "".join("l" if name in TEXT_COLUMNS else "r" for name in cells.columns)
        caption = ". ".join(media.latex(text) for text in (self.title, self.caption) if text)
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            heading,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
        return "\n".join(lines)


def headline(summary: pd.DataFrame) -> Table:
    """The comparison: one row for each decoder. `summary` has `metrics.decoder_row`s."""
    rows = []
    for row in summary.to_dict("records"):
        equal, compared = row["equal_answers"], row["compared_answers"]
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
                "equal": f"{equal} of {compared}" if compared else NONE,
            }
        )
    cells = pd.DataFrame(rows)
    if cells.turns.nunique() == 1:
        cells = cells.drop(columns="turns")
    baselines = summary.baseline.dropna().unique()
    caption = "in parentheses: 95 % intervals, bootstrap over questions"
    if len(baselines) == 1:
        caption += f"; ratios and equal answers: to {baselines[0]}"
    return Table("Comparison", cells, caption + _starred(cells))


def by_group(table: pd.DataFrame, column: str) -> Table:
    """The decoders of each category (or turn), one below the other. `table` is of `metrics.by`."""
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
    """How the wall-clock ratios are spread over the questions, and the slowest question.

    ratios: decoder -> `metrics.wall_clock_ratio_by_question`, none of them empty. repeatability:
    baseline -> `metrics.repeatability_by_question`. Its rows come last and show the noise.
    """
    against_itself = {f"{name} against itself": ratio for name, ratio in repeatability.items()}
    quantiles = {"least": 0, "quarter": 0.25, "median": 0.5, "three quarters": 0.75, "most": 1}
    rows = []
    for name, ratio in (*ratios.items(), *against_itself.items()):
        known = ratio.dropna()
        rows.append(
            {
                "decoder": name,
                "questions": str(len(known)),
                **{
                    heading: _number(known.quantile(quantile), "{:.2f}x")
                    for heading, quantile in quantiles.items()
                },
                f"below {SLOWER}x": str((known < SLOWER).sum()),
                "slowest question": str(known.idxmin()),
            }
        )
    caption = "wall-clock ratio by question; of one that was answered several times, of the medians"
    if against_itself:
        caption += (
            "; against itself: every other answer to those between, which shows how much is chance"
        )
    return Table("By question", pd.DataFrame(rows), caption)


def acceptance(table: pd.DataFrame, summary: pd.DataFrame) -> Table:
    """One row for each decoder: its accept lengths, and how often each depth is kept.

    table: of `metrics.acceptance_table`. summary: of `metrics.decoder_row`s.
    """
    rows = []
    for row in summary.to_dict("records"):
        depths = table[table.decoder == row["decoder"]] if len(table) else table
        shares = " ".join(f"{100 * share:.0f}" for share in row["accept_length_histogram"])
        cells = {"decoder": row["decoder"], "accept length, %": shares or NONE}
        for depth in depths.to_dict("records"):
            cells[f"depth {depth['depth']}"] = _number(100 * depth["rate"], "{:.1f}")
        rows.append(cells)
    caption = (
        "accept length: share of the steps that committed 1, 2, 3, ... tokens; depth d: % of the "
        "steps kept at depth d - 1 that are kept at d too, which is the accuracy of head d as the "
        "run met it, within the tree"
    )
    return Table("Acceptance", pd.DataFrame(rows).fillna(NONE), caption)


def spec_bench(rows: list[dict]) -> Table:
    """`metrics.spec_bench_row`s, one for each decoder."""
    cells = [
        {
            "decoder": row["decoder"],
            "mean accepted tokens": _number(row["mean_accepted_tokens"], "{:.3f}"),
            "tokens/s": _number(row["mean_tokens_per_second"], "{:.1f}"),
            "speed-up": _number(row["speed_up"], "{:.2f}x"),
        }
        for row in rows
    ]
    caption = "averages over questions, not pooled; times with prefill"
    return Table("As Spec-Bench computes it", pd.DataFrame(cells), caption)


def verdicts(turns: pd.DataFrame, summary: pd.DataFrame, one_machine: bool) -> list[str]:
    """Which decoder leads, by how much over the next, and whether that is more than chance.

    Empty for a single decoder. one_machine: do all times come from one machine? If not, speeds are
    not ranked.
    """
    columns = [("tokens per inference", "tokens_per_inference", "tpi_ratio", "{:.3f}")]
    if one_machine:
        columns.append(("tokens per second", "tokens_per_second", "wall_clock_ratio", "{:.1f}"))
    sentences = []
    for what, column, ratio, form in columns:
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
        value = form.format(order[column].iloc[0])
        sentences.append(
            f"most {what}: {first} with {value}, {estimate.value:.2f}x {second}'s{words}"
        )
    return sentences


def _wall_clock_column(row: dict) -> str:
    """The column of the ratio without prefill if known. Answer files only have one with prefill."""
    is_known = pd.notna(row["wall_clock_ratio"])
    return "wall_clock_ratio" if is_known else "wall_clock_ratio_with_prefill"


def _wall_clock(row: dict) -> str:
    """The wall-clock ratio, with a star where it includes the prefill."""
    column = _wall_clock_column(row)
    text = _interval(_estimate(row, column), "{:.2f}x")
    return text if column == "wall_clock_ratio" or text == NONE else f"{text}*"


def _starred(cells: pd.DataFrame) -> str:
    """The meaning of the star. Empty: there is no star."""
    if not cells["wall-clock ratio"].str.endswith("*").any():
        return ""
    return "; * prefill included: the files have no other time"


def _speed_in_words(row: dict) -> str:
    words = _estimate(row, _wall_clock_column(row)).words
    return {"higher": "faster", "lower": "slower", "unknown": NONE}.get(words, words)


def _estimate(row: dict, name: str) -> Estimate:
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _number(value: float, form: str) -> str:
    return NONE if pd.isna(value) else form.format(value)


def _interval(estimate: Estimate, form: str) -> str:
    """A number and its interval: "1.20x (1.10, 1.30)"."""
    if pd.isna(estimate.value):
        return NONE
    value = form.format(estimate.value)
    if pd.isna(estimate.low) or estimate.low == estimate.high:
        return value
    form = form.removesuffix("x")
    return f"{value} ({form.format(estimate.low)}, {form.format(estimate.high)})"
