"""Tables and figures of runs and of anyone's answer files, side by side.

    python -m bench.report results/<run>                     its tables; writes report.html into it
    python -m bench.report results/a results/b answers/      several, in one table
    python -m bench.report results/a --format markdown       or latex, json
    python -m bench.report results/a results/b --out both    report.html, summary.csv and figures/
    python -m bench.report a.jsonl b.jsonl --baseline b      ratios to the answers of b
    python -m bench.report --phases step.json                what scripts/bench_step.py measured
    python -m bench.report results/<run> --phases step.json  and what drafting costs

Everything is derived from the turns and can be made again. Warnings go to stderr. The exit status
is 1 where something that was asked for could not be shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.common import arguments
from bench.common.errors import UserError, exit_cleanly, print_error, warn
from bench.common.files import writing
from bench.common.flags import refuse_ignored
from bench.common.waiting import patience

if TYPE_CHECKING:
    from bench.reporting.source import Source
    from bench.store.step_profile import StepTable

# bench.reporting is imported inside functions: it loads pandas and matplotlib, and --help does not
# wait for them.

OTHER_OUT = "give another --out"
FORMATS = ("terminal", "markdown", "latex", "json")


def parser() -> argparse.ArgumentParser:
    made = arguments.parser("python -m bench.report", __doc__)
    add = made.add_argument
    add(
        "inputs",
        type=Path,
        nargs="*",
        metavar="RUN_OR_ANSWERS",
        help="folder of a run, answer file, or folder of answer files",
    )
    add("--format", choices=FORMATS, default="terminal", help="of the tables on stdout")
    add(
        "--baseline",
        metavar="NAME",
        help="baseline of ratios: a decoder, or a name in the table (default: each run's greedy)",
    )
    add(
        "--questions",
        help="question set of the answer files, for categories: a name or a .jsonl file",
    )
    add(
        "--out",
        type=Path,
        help="folder for report.html, summary.csv and figures/ (default: the run's, if it is one)",
    )
    add(
        "--phases",
        type=Path,
        metavar="FILE",
        help="what scripts/bench_step.py wrote: drawn alone, or added to the report of runs",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """argv: arguments. None: those of the command line."""
    flags = parser()
    args = flags.parse_args(argv)
    if not args.inputs and args.phases is None:
        raise UserError(
            "nothing to report: give the folder of a run or an answer file (--help shows examples)"
        )
    steps = None
    if args.phases is not None:
        from bench.store.step_profile import read_phases

        steps = read_phases(args.phases)
    if not args.inputs:
        of_runs = ("format", "baseline", "questions")
        refuse_ignored(args, flags.get_default, of_runs, "without runs, --phases is a figure alone")
        draw_step_phases(steps, args.out or args.phases.parent)
        return 0
    with patience("reading the runs"):
        sources, is_complete = open_all(args.inputs, args.questions)
    report_on(sources, args.baseline, steps, args.format, args.out)
    return 0 if is_complete else 1


def draw_step_phases(steps: StepTable, folder: Path) -> None:
    from bench.reporting.figures import draw_phases

    with writing(folder, OTHER_OUT):
        print(draw_phases(steps, folder).path, file=sys.stderr)


def open_all(paths: Sequence[Path], questions: str | None) -> tuple[list[Source], bool]:
    """The sources at all paths, and whether each path could be shown in full.

    Warns on stderr of what is left out. UserError where nothing is left.
    """
    from bench.reporting.sources import NoNumbers, open_sources
    from bench.store.run_record import holds_run

    sources, errors = [], []
    is_complete = True
    for path in paths:
        opened, problems = open_sources(path, questions)
        sources += opened
        errors += problems
        if holds_run(path) and opened and opened[0].run is None:
            is_complete = False  # Its answer files are shown instead.
    if not sources and len(errors) == 1:
        raise errors[0]
    for error in errors:
        if isinstance(error, NoNumbers):
            warn(f"{error}; it is left out")
        else:
            print_error(error)
            is_complete = False
    if not sources:
        raise UserError("none of these can be shown")
    return sources, is_complete


def report_on(
    sources: list[Source],
    baseline: str | None,
    steps: StepTable | None,
    form: str,
    out: Path | None,
) -> None:
    """Print the report of some sources, and write its files."""
    from bench.reporting.comparison import Report, write_derived, write_summary

    report = Report.of(sources, baseline, steps)
    for warning in report.warnings:
        warn(warning)
    report.show(form)
    if out is not None:
        with writing(out, OTHER_OUT):
            write_summary(out, report)
        print(f"{out}: summary.csv, figures/, report.html", file=sys.stderr)
    elif len(sources) == 1 and sources[0].run is not None:
        write_derived(report)
        print(f"{sources[0].folder}: summary.csv, figures/, answers/, report.html", file=sys.stderr)


if __name__ == "__main__":
    exit_cleanly(main)
