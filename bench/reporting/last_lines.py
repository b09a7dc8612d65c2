"""The last lines of a run: what its numbers mean on this machine, and what to try next."""

from bench.common.media import one_line
from bench.reporting.comparison import Report
from bench.reporting.page import remark_on
from bench.reporting.report_tables import estimate_of
from bench.reporting.source import Source
from decoders.spec import AUTO

LEAST_TURNS = 4  # Fewest turns of greedy whose spread is shown.
BUSY = 1.5  # Ratio of greedy's slow to its fast answers. Longer texts alone make far less of it.
SPEED = "wall_clock_ratio_with_prefill"
# Decoders that take nodes=auto, and need no further option or file for it.
ADVISED = ("dynamic", "conditional")


def last_lines(report: Report) -> list[str]:
    """Sentences below the table of a single run."""
    (source,) = report.sources
    lines = [
        _threads(source),
        _without_baseline(source),
        _busy(source),
        _slower_trees(report, source),
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


def _slower_trees(report: Report, source: Source) -> str:
    """Why a decoder with more tokens a step is slower, and what is faster.

    Empty: none is, beyond chance, or its speed is not ranked.
    """
    records = report.summary.to_dict("records")
    rows = [row for row in records if row["decoder"] not in report.unranked]
    auto = [label for label in source.labels if source.options[label].get("nodes") == AUTO]
    fixed = [row for row in rows if row["decoder"] not in auto]
    drafting = [row for row in fixed if estimate_of(row, "tpi_ratio").words == "higher"]
    losing = [row for row in drafting if estimate_of(row, SPEED).words == "lower"]
    if not losing:
        return ""
    worst = min(losing, key=lambda row: row[SPEED])
    why = (
        f"{worst['decoder']} commits {worst['tpi_ratio']:.2f} times greedy's tokens a step and is "
        "slower all the same: on this machine its steps, drafting included, take longer than the "
        "steps that they save"
    )
    winning = [row for row in rows if estimate_of(row, SPEED).words == "higher"]
    if winning:
        best = max(winning, key=lambda row: row[SPEED])
        return f"{why}; {best['decoder']} wins here: {best[SPEED]:.2f} times greedy's speed."
    names = [source.options[row["decoder"]]["decoder"] for row in losing]
    name = next((each for each in names if each in ADVISED), None)
    if auto or name is None:
        return f"{why}."
    return f"{why}; {name}:nodes={AUTO} verifies only as many nodes as pay here."
