"""What drafting costs in a step, beside what it brings."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.common.errors import UserError
from bench.reporting.source import Source
from bench.store.step_profile import PHASES, StepTable
from decoders.spec import AUTO, BASELINE

# The phases in which a step's tree is chosen, and in which later ones are prepared.
DRAFTING = ("draft", "propose", "learn")


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


def drafting_rows(
    summary: pd.DataFrame, steps: StepTable, sources: Sequence[Source]
) -> pd.DataFrame:
    """The rows of `summary` whose decoders were measured, with the columns of `drafting_costs`.

    summary: a `metrics.decoder_row` for each label. A decoder is found by its label without the
    name of the source. Those of `other_trees` are left out.
    """
    costs = drafting_costs(steps)
    own = {}
    for source in sources:
        left_out = other_trees(steps, source)
        own |= {label: source.own_name(label) for label in source.labels if label not in left_out}
    rows = summary[summary.decoder.map(own).isin(costs.index)]
    return rows.join(costs, on=rows.decoder.map(own))


def other_trees(steps: StepTable, source: Source) -> dict[str, str]:
    """The labels whose measured steps have other trees than those of the source, and how, in words.

    The label does not show the tree, which --nodes and --tree also change. Trees whose size follows
    the text are left out, because steps are measured on random text.
    """
    found = {}
    for label in source.labels:
        name = source.own_name(label)
        measured = {row.get("nodes") for row in steps.rows if row["decoder"] == name} - {None}
        turns = source.frame[source.frame.decoder == label].nodes
        verified = {int(each) for nodes in turns if isinstance(nodes, np.ndarray) for each in nodes}
        if not measured or not verified or verified == measured:
            continue
        if source.options[label].get("nodes") == AUTO:
            verified_words = "nodes=auto"
        elif len(verified) == 1:
            verified_words = f"{min(verified)} nodes"
        else:
            verified_words = f"{min(verified)} to {max(verified)} nodes"
        found[label] = (
            f"the step times of {name} in {steps.path} are of {max(measured)} nodes, and those of "
            f"{source.name} of {verified_words}; they are not put together"
        )
    return found


def not_measured(steps: StepTable, source: Source) -> str | None:
    """Where no drafting decoder of a source was measured, in words. None: one was."""
    own = {source.own_name(label) for label in source.labels} - {BASELINE}
    measured = {row["decoder"] for row in steps.rows} - {BASELINE}
    if not own or own & measured:
        return None
    return (
        f"{steps.path} has no steps of {', '.join(sorted(own))}, of {source.name}, but of "
        f"{', '.join(sorted(measured)) or 'greedy alone'}"
    )


def difference_in_words(steps: StepTable, source: Source) -> str | None:
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


def warnings_about(steps: StepTable, source: Source) -> list[str]:
    """Warnings where step times and a source do not belong together."""
    found = difference_in_words(steps, source), not_measured(steps, source)
    return [*filter(None, found), *other_trees(steps, source).values()]
