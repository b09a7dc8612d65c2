"""The tables of a report, made from numbers."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bench.metrics import REPEATS_ABOVE, Estimate
from bench.metrics.acceptance import FEWEST
from bench.reporting.tables import NONE, Table
from bench.store.run_record import TIE, Difference

SLOWER = 0.97  # Wall-clock ratio. Below it, a question counts as slower than the baseline.
HEADS_ALONE = ("static", "dynamic")  # Decoders that draft with heads alone.
LENGTHS = 12  # Accept lengths from here on are one number in a table.
MOST_DEPTHS = 10  # Columns of a table. Where there are more depths, powers of two have columns.
NOT_ALIKE = "not alike"  # Shown in place of "faster" or "slower".
SPEED_WORDS = {"higher": "faster", "lower": "slower"}
BELOW = f"below {SLOWER}x"  # A column of "By question".
OF_SPEED = ("wall-clock ratio", "decoding only", "speed-up", BELOW)  # Columns of speed-ups.
GROUPS = {"answer_class": "answer"}  # Columns of `metrics.by` that are called otherwise in tables.


def headline(
    summary: pd.DataFrame, unranked: Collection[str] = (), not_looked_for: Collection[str] = ()
) -> Table:
    """The comparison: one row for each decoder. `summary` has `metrics.decoder_row`s.

    unranked: decoders that are not said to be faster or slower. not_looked_for: decoders with
    answers that differ from the baseline's, where the table of differences lacks theirs.
    """
    cells = headline_cells(summary, unranked).drop(columns="decoding tokens/s")
    if not _has_own_tpi_ratio(summary):
        cells = cells.drop(columns="TPI ratio")
    return Table("Comparison", cells, _caption(summary, unranked, not_looked_for))


def headline_cells(summary: pd.DataFrame, unranked: Collection[str] = ()) -> pd.DataFrame:
    """The headline's cells, with all columns that a page may show. Arguments as in `headline`."""
    rows = []
    for row in summary.to_dict("records"):
        equal, compared = row["equal_answers"], row["compared_answers"]
        rows.append(
            {
                "decoder": row["decoder"],
                "wall-clock ratio": _speed(row, unranked),
                "median question": _number(row["median_question_ratio_with_prefill"], "{:.2f}x"),
                "decoding only": _number(row["wall_clock_ratio"], "{:.2f}x"),
                "tokens/s": _number(row["tokens_per_second_with_prefill"], "{:.1f}"),
                "decoding tokens/s": _number(row["tokens_per_second"], "{:.1f}"),
                "tokens/inference": _interval(estimate_of(row, "tokens_per_inference"), "{:.3f}"),
                "TPI ratio": _number(row["tpi_ratio"], "{:.2f}x"),
                "equal": f"{equal}/{compared}" if compared else NONE,
            }
        )
    return pd.DataFrame(rows)


def _has_own_tpi_ratio(summary: pd.DataFrame) -> bool:
    """Whether the TPI ratio says more than tokens per inference: not where greedy's are 1."""
    known = summary[summary.tpi_ratio.notna()]
    return not np.isclose(known.tpi_ratio, known.tokens_per_inference, rtol=1e-3).all()


def _caption(
    summary: pd.DataFrame, unranked: Collection[str], not_looked_for: Collection[str]
) -> str:
    parts = ["whole turns, prefill included; in parentheses: 95 % intervals over questions"]
    baselines = summary.baseline.dropna().unique()
    if len(baselines) == 1:
        parts.append(f"ratios and equal answers: to {baselines[0]}")
    if (summary.compared_answers > 0).any():
        parts.append("equal: answers with the same tokens in all turns")
    if not_looked_for:
        names = ", ".join(not_looked_for)
        parts.append(f"where answers of {names} differ from greedy's: not looked for yet")
    if unranked:
        parts.append(
            f"{NOT_ALIKE}: of other settings, questions or machine than the baseline, or of a run "
            "whose sessions were not alike"
        )
    if summary.turns.nunique() > 1:
        counts = (f"{row['turns']} of {row['decoder']}" for row in summary.to_dict("records"))
        parts.append(f"turns: {', '.join(counts)}")
    if repeating := _repeating(summary):
        parts.append(repeating)
    return "; ".join(parts)


def _repeating(summary: pd.DataFrame) -> str:
    """How much of the tokens is in answers that repeat themselves. Empty: nothing is."""
    summary = summary[summary.repeating_turns.notna()]
    turns, tokens = int(summary.repeating_turns.sum()), summary.repeating_tokens.sum()
    if not turns:
        return ""
    limit, share = 100 * REPEATS_ABOVE, 100 * tokens / summary.tokens.sum()
    of_all = summary.turns.sum()
    where = ": see By answer" if turns < of_all else ""  # That table has both classes.
    return (
        f"{turns} of {of_all} turns repeat over {limit:.0f} % of their 4-grams, and hold "
        f"{share:.0f} % of the tokens{where}"
    )


def marked(table: Table, unranked: Collection[str]) -> Table:
    """A table other than the headline, whose caption names the decoders that are not ranked.

    unranked: as in `headline`. A table without speed-ups of such decoders stays as it is.
    """
    if not table.cells.columns.intersection(OF_SPEED).size:
        return table
    names = [name for name in table.cells.decoder.unique() if name in unranked]
    if not names:
        return table
    mark = f"{NOT_ALIKE}, and not ranked: {', '.join(names)}"
    return replace(table, caption="; ".join(filter(None, (table.caption, mark))))


def differences(found: Sequence[Difference], dtypes: Mapping[str, str | None]) -> Table:
    """Every turn of a lossless decoder that differs from greedy's, and how close the scores were.

    dtypes: decoder -> the dtype that its model computes in.
    """
    rows = [
        {
            "decoder": each.decoder,
            "question": str(each.question_id),
            "choice": str(each.choice + 1) if any(other.choice for other in found) else NONE,
            "turn": str(each.turn),
            "token": NONE if each.token is None else str(each.token),
            "gap": _number(each.gap, "{:.2g}"),
            "float32 tie": _tie(each, dtypes.get(each.decoder)),
        }
        for each in found
    ]
    caption = (
        "token: the first that differs, from 0 on; gap: the change of one logit that makes the two "
        f"highest scores there equal; up to {TIE:g} in float32, the order of additions decides"
    )
    return Table("Differences from greedy", pd.DataFrame(rows), caption)


def _tie(difference: Difference, dtype: str | None) -> str:
    if dtype != "float32" or difference.gap is None:
        return NONE
    return "yes" if difference.is_tie else "no: the decoder is wrong there"


def by_group(table: pd.DataFrame, column: str) -> Table:
    """The decoders of each category (or turn, ...), one below the other. `table`: `metrics.by`."""
    heading = GROUPS.get(column, column)
    rows = []
    for row in table.to_dict("records"):
        ratio = estimate_of(row, "wall_clock_ratio_with_prefill")
        rows.append(
            {
                heading: str(row[column]),
                "decoder": row["decoder"],
                "turns": str(row["turns"]),
                "wall-clock ratio": _interval(ratio, "{:.2f}x"),
                "decoding only": _number(row["wall_clock_ratio"], "{:.2f}x"),
                "tokens/s": _number(row["tokens_per_second_with_prefill"], "{:.1f}"),
                "tokens/inference": _interval(estimate_of(row, "tokens_per_inference"), "{:.3f}"),
            }
        )
    caption = ""
    if column == "answer_class":
        share = f"{100 * REPEATS_ABOVE:.0f} %"
        caption = (
            f"repeating: over {share} of the 4-grams of the baseline's answer, where there is one, "
            "occurred in it before"
        )
    return Table(f"By {heading}", pd.DataFrame(rows), caption)


def by_question(ratios: Mapping[str, pd.Series], repeatability: Mapping[str, pd.Series]) -> Table:
    """How the wall-clock ratios are spread over the questions, and the slowest question.

    ratios: decoder -> `metrics.wall_clock_ratio_by_question` of whole turns, none of them empty.
    repeatability: baseline -> `metrics.repeatability_by_question`. Its rows come last and show the
    noise.
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
                BELOW: str((known < SLOWER).sum()),
                "slowest question": str(known.idxmin()),
            }
        )
    caption = (
        "wall-clock ratio of whole turns by question; of one that was answered several times, of "
        "the medians"
    )
    if against_itself:
        caption += (
            "; against itself: the baseline's odd answers to a question against its even ones, "
            "which shows how much is chance"
        )
    return Table("By question", pd.DataFrame(rows), caption)


def acceptance(table: pd.DataFrame, summary: pd.DataFrame, kinds: Mapping[str, str]) -> Table:
    """One row for each decoder: its accept lengths, and how often each depth is kept.

    table: of `metrics.acceptance_table`. summary: of `metrics.decoder_row`s. kinds: label -> the
    name of its decoder, without options.
    """
    deepest = max(table.depth[table.tried >= FEWEST], default=0)
    columns = [d for d in range(1, deepest + 1) if deepest <= MOST_DEPTHS or not d & (d - 1)]
    rows = []
    for row in summary.to_dict("records"):
        depths = table[(table.decoder == row["decoder"]) & (table.tried >= FEWEST)]
        cells = {
            "decoder": row["decoder"],
            "accept length, %": _shares(row["accept_length_histogram"]) or NONE,
        }
        for depth in depths[depths.depth.isin(columns)].to_dict("records"):
            cells[f"depth {depth['depth']}"] = _number(100 * depth["rate"], "{:.1f}")
        rows.append(cells)
    made = pd.DataFrame(rows).fillna(NONE)
    of_depths = sorted(made.columns[2:], key=lambda name: int(name.split()[1]))
    made = made[[*made.columns[:2], *of_depths]]
    caption = (
        f"accept length: share of the steps that committed 1, 2, 3, ... tokens, number {LENGTHS} "
        f"being of {LENGTHS} or more; depth d: % of the steps kept at depth d - 1 that are kept at "
        f"d too, where at least {FEWEST} steps were"
    )
    if any(kinds[label] in HEADS_ALONE for label in summary.decoder):
        caption += (
            "; of static and dynamic: how often the tree held the right guess of head d, where it "
            "held those of all heads before"
        )
    return Table("Acceptance", made, caption)


def _shares(histogram: Sequence[float]) -> str:
    """Shares of accept lengths in %: "50 30 20". Those of LENGTHS or more are one number."""
    shares = [*histogram[: LENGTHS - 1], sum(histogram[LENGTHS - 1 :])]
    return " ".join(f"{100 * share:.0f}" for share in shares[: len(histogram)])


def drafting(rows: pd.DataFrame) -> Table:
    """What drafting costs, beside what it brings. rows: of `bench.reporting.drafting`."""
    cells = [
        {
            "decoder": row["decoder"],
            "drafting, ms": _number(1e3 * row["drafting_s"], "{:.2f}"),
            "drafting / greedy step": _number(row["drafting"], "{:.3f}"),
            "step / greedy step": _number(row["step"], "{:.2f}"),
            "tokens/inference": _number(row["tokens_per_inference"], "{:.3f}"),
            "wall-clock ratio": _number(row["wall_clock_ratio_with_prefill"], "{:.2f}x"),
        }
        for row in rows.to_dict("records")
    ]
    caption = (
        "drafting and steps: measured apart from the run, each phase on its own, medians over "
        "lengths of context"
    )
    return Table("Drafting", pd.DataFrame(cells), caption)


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
    caption = (
        "tokens/s and speed-up: averages over questions, not pooled; times with prefill; first "
        "choice only"
    )
    return Table("As Spec-Bench computes it", pd.DataFrame(cells), caption)


def _speed(row: dict, unranked: Collection[str]) -> str:
    """The wall-clock ratio of whole turns with its interval and what that says in words."""
    estimate = estimate_of(row, "wall_clock_ratio_with_prefill")
    text = _interval(estimate, "{:.2f}x")
    if text == NONE or estimate.words == "unknown":
        return text
    if row["decoder"] in unranked:
        return f"{text} {NOT_ALIKE}"
    return f"{text} {SPEED_WORDS.get(estimate.words, estimate.words)}"


def estimate_of(row: dict, name: str) -> Estimate:
    """A number of a `metrics.decoder_row`, with its interval."""
    return Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _number(value: float, form: str) -> str:
    return NONE if pd.isna(value) else form.format(value)


def _interval(estimate: Estimate, form: str) -> str:
    """A number and its interval, with two decimals: "1.20x (1.10, 1.30)"."""
    if pd.isna(estimate.value):
        return NONE
    value = form.format(estimate.value)
    if pd.isna(estimate.low) or math.isclose(estimate.low, estimate.high):
        return value
    return f"{value} ({estimate.low:.2f}, {estimate.high:.2f})"
