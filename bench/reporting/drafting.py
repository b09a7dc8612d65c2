"""What drafting costs in a step, beside what it brings."""

import pandas as pd

from bench.common.errors import UserError
from bench.reporting.source import Source
from bench.reporting.tables import NONE, Table
from bench.store.step_profile import PHASES, StepTable
from decoders.spec import BASELINE

DRAFTING = ("draft", "propose")  # The phases that choose a step's tree.


def drafting_costs(steps: StepTable) -> pd.DataFrame:
    """By decoder (the index), medians over the lengths of context that were measured.

    drafting_s: seconds of drafting in a step. drafting, step: drafting, and the whole step, in
    greedy steps over the same context. UserError where the file has no greedy steps.
    """
    frame = pd.DataFrame(steps.rows)
    frame["drafting_s"] = frame[[f"{phase}_s" for phase in DRAFTING]].sum(axis=1)
    frame["step_s"] = frame[[f"{phase}_s" for phase in PHASES]].sum(axis=1)
    greedy_s = frame[frame.decoder == BASELINE].set_index("length").step_s
    if missing := sorted(set(frame.length) - set(greedy_s.index)):
        raise UserError(
            f"{steps.path} has no {BASELINE} steps at {missing[0]} tokens of context; expected "
            "those that scripts/bench_step.py adds"
        )
    frame["drafting"] = frame.drafting_s / frame.length.map(greedy_s)
    frame["step"] = frame.step_s / frame.length.map(greedy_s)
    columns = ["drafting_s", "drafting", "step"]
    return frame.groupby("decoder", sort=False)[columns].median()


def drafting_table(summary: pd.DataFrame, steps: StepTable, sources: list[Source]) -> pd.DataFrame:
    """The decoders of a report that were measured: `drafting_costs` beside what it brings.

    summary: a `metrics.decoder_row` for each label. The label that was measured is the one without
    the name of its source.
    """
    costs = drafting_costs(steps)
    own = {
        label: label.removeprefix(f"{source.name}/")
        for source in sources
        for label in source.labels
    }
    rows = summary[summary.decoder.map(own).isin(costs.index)]
    return rows.join(costs, on=rows.decoder.map(own))


def unlike(steps: StepTable, source: Source) -> str | None:
    """How the steps and a source differ, in words. None: they do not, as far as is recorded."""
    known = {name: (source.environment or {}).get(name) for name in ("device", "dtype")}
    known["model"] = source.run.model.name if source.run is not None else None
    for name, ours in steps.conditions.items():
        if known[name] not in (None, ours):
            return (
                f"the step times of {steps.path} are of {name} {ours}, and {source.name} is of "
                f"{known[name]}"
            )
    return None


def as_text(table: pd.DataFrame) -> Table:
    """The result of `drafting_table`, to be shown."""
    rows = [
        {
            "decoder": row["decoder"],
            "drafting, ms": f"{1e3 * row['drafting_s']:.2f}",
            "drafting / greedy step": f"{row['drafting']:.3f}",
            "step / greedy step": f"{row['step']:.2f}",
            "tokens/inference": _known(row["tokens_per_inference"], ".3f"),
            "wall-clock ratio": _known(row["wall_clock_ratio_with_prefill"], ".2f", "x"),
        }
        for row in table.to_dict("records")
    ]
    caption = (
        "drafting and steps: measured apart from the run, each phase on its own, medians over "
        "lengths of context"
    )
    return Table("Drafting", pd.DataFrame(rows), caption)


def _known(value: float, form: str, unit: str = "") -> str:
    return NONE if pd.isna(value) else f"{value:{form}}{unit}"
