"""The last lines of a run: what its numbers mean on this machine, and what to try next."""

import pandas as pd

from bench.common.media import one_line
from bench.reporting.comparison import Report
from bench.reporting.page import remark_on
from bench.reporting.source import Source

LEAST_TURNS = 4  # Fewest turns of greedy for which its spread is told.
BUSY = 1.5  # Ratio of greedy's slow to its fast answers. Longer texts alone make far less of it.


def last_lines(report: Report) -> list[str]:
    """Sentences below the table of a single run."""
    (source,) = report.sources
    lines = [
        _threads(source),
        _without_baseline(source),
        _busy(source),
        _slower_trees(report.summary, source),
        remark_on([source.run]),
    ]
    return [one_line(line) for line in lines if line]


def _threads(source: Source) -> str:
    """What timed the run. Empty: it was not a CPU, or that is not recorded."""
    environment = source.run.environment
    if environment.device_type != "cpu" or environment.threads is None:
        return ""
    return (
        f"Timed on {environment.device}, threads: {environment.threads} (OMP_NUM_THREADS sets "
        "another number)."
    )


def _without_baseline(source: Source) -> str:
    """How to get a ratio. Empty: there is one."""
    if source.baseline is not None:
        return ""
    names = ",".join(source.run.config.decoders)
    return f"No ratio: greedy did not run. Add it to compare: --decoder greedy,{names}"


def _busy(source: Source) -> str:
    """How much greedy's own speed varied. Empty: it varied little, or greedy did not run."""
    turns = source.frame[source.frame.decoder == source.baseline]
    step_ms = (1000 * turns.decode_s / turns.steps).dropna()
    if len(step_ms) < LEAST_TURNS:
        return ""
    fast, slow = step_ms.quantile(0.1), step_ms.quantile(0.9)
    if slow < BUSY * fast:
        return ""
    return (
        f"The machine was busy, or its speed varies: greedy's own steps took {fast:.1f} ms in some "
        f"answers and {slow:.1f} ms in others, so small differences in speed are chance."
    )


def _slower_trees(summary: pd.DataFrame, source: Source) -> str:
    """Why trees with more tokens a step are slower, and what is faster. Empty: none is slower."""
    auto = [label for label in source.labels if source.options[label].get("nodes") == "auto"]
    fixed = summary[~summary.decoder.isin(auto)]
    losing = fixed[(fixed.tpi_ratio > 1) & (fixed.wall_clock_ratio < 1)]
    if losing.empty:
        return ""
    worst = losing.loc[losing.wall_clock_ratio.idxmin()]
    why = (
        f"{worst.decoder} commits {worst.tpi_ratio:.2f} times greedy's tokens a step and is slower "
        "all the same, as a step that verifies many nodes takes longer on this machine than the "
        "steps that it saves"
    )
    winning = summary[summary.wall_clock_ratio > 1]
    if len(winning):
        best = winning.loc[winning.wall_clock_ratio.idxmax()]
        return f"{why}; {best.decoder} wins here: {best.wall_clock_ratio:.2f} times greedy's speed."
    return f"{why}." if auto else f"{why}; --nodes auto verifies only as many as pay here."
