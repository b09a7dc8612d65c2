"""Which decoder leads, in sentences."""

from collections.abc import Sequence

import pandas as pd

from bench import metrics
from bench.metrics.rates import PAIR

_MEASURES = {
    # What is ranked -> its function, its column in a frame, its ratio, its format.
    "tokens per inference": (metrics.tokens_per_inference, "steps", "tpi_ratio", "{:.3f}"),
    "tokens per second": (
        metrics.tokens_per_second_with_prefill,
        "wall_s",
        "wall_clock_ratio_with_prefill",
        "{:.1f}",
    ),
}


def sentences(turns: pd.DataFrame, labels: Sequence[str], one_machine: bool) -> list[str]:
    """Which label leads, by how much over the next, and whether that is more than chance.

    Only the turns that all labels finished count, so that no part of a run is ranked against a
    whole one. Empty for a single label. one_machine: do all times come from one machine? If not,
    speeds are not ranked.
    """
    if len(labels) < 2:
        return []
    made = []
    for what, (measure, column, ratio, form) in _MEASURES.items():
        if what == "tokens per second" and not one_machine:
            continue
        known = turns[turns[column].notna()]
        known = known[known.decoder.isin(labels)]
        ranked = [label for label in labels if (known.decoder == label).any()]
        if len(ranked) < 2:
            continue
        common = _finished_by_all(known, len(ranked))
        if common.empty:
            made.append(f"most {what}: not said, as no turn is finished by all of them")
            continue
        values = {label: measure(common[common.decoder == label]) for label in ranked}
        first, second = sorted(ranked, key=values.__getitem__, reverse=True)[:2]
        estimate = metrics.estimates(common, first, second)[ratio]
        if pd.isna(estimate.value):
            continue
        value = form.format(values[first])
        made.append(
            f"most {what}: {first} with {value}, {estimate.value:.2f}x {second}'s"
            f"{_certainty(estimate)}{_extent(common, known, len(ranked))}"
        )
    return made


def _finished_by_all(turns: pd.DataFrame, labels: int) -> pd.DataFrame:
    """The rows of the turns that each of so many labels has."""
    return turns[turns.groupby(PAIR).decoder.transform("nunique") == labels]


def _certainty(estimate: metrics.Estimate) -> str:
    if pd.isna(estimate.low):
        return " (too few questions for an interval)"
    words = f", {estimate.words}" if estimate.words == "no significant difference" else ""
    return f" (95 %: {estimate.low:.2f} to {estimate.high:.2f}){words}"


def _extent(common: pd.DataFrame, known: pd.DataFrame, labels: int) -> str:
    """Which turns count, where not all of them do. Empty: all."""
    if len(common) == len(known):
        return ""
    return f"; on the {len(common) // labels} turns that all of them finished"
