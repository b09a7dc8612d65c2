"""Tables and figures of runs and of anyone's answer files, side by side.

    python -m bench.report results/<run>                       its tables; writes report.html and the rest into it
    python -m bench.report results/a results/b model_answer/   several, in one table
    python -m bench.report results/a --format markdown         or latex, json: for a pull request, a paper, a program
    python -m bench.report results/a results/b --out compared  report.html, summary.csv and figures/ of all of them
    python -m bench.report a.jsonl b.jsonl --baseline b        ratios to the answers of b
    python -m bench.report --phases step.json                  a figure of what scripts/bench_step.py measured

Everything here is derived from the turns and can be made again. Warnings go to stderr. The exit status is 1 where something
that was asked for could not be shown.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd
import shortuuid

from bench import metrics
from bench.common.errors import UserError, exit_cleanly, warn
from bench.common.files import json_line, safe_name, write_atomically
from bench.reporting import tables
from bench.reporting.figures import Figure, draw_all, draw_phases
from bench.reporting.page import Page, conditions_of, write_page
from bench.reporting.sources import (
    NoNumbers,
    Source,
    incomparable,
    open_run,
    open_sources,
    set_differently,
    side_by_side,
)
from bench.store.records import Turn

SCHEMA_VERSION = 1  # of --format json


@dataclass(frozen=True, eq=False)
class Report:
    """Sources side by side, and what each label is compared with."""

    sources: Sequence[Source]
    baselines: dict[str, str | None]  # label -> label

    @classmethod
    def of(cls, sources: Iterable[Source], baseline: str | None = None) -> "Report":
        """`baseline` names a label that all are compared with, or a decoder; without it, greedy of the same source.

        UserError where it is neither.
        """
        sources = side_by_side(sources)
        options = {label: own for source in sources for label, own in source.options.items()}
        labels = [label for source in sources for label in source.labels]
        if baseline is None:
            return cls(
                sources, {label: source.baseline for source in sources for label in source.labels}
            )
        if baseline in labels:
            return cls(sources, dict.fromkeys(labels, baseline))
        found = {}
        for source in sources:
            own = [
                label
                for label in source.labels
                if baseline in (options[label]["decoder"], label.rpartition("/")[2])
            ]
            found |= dict.fromkeys(source.labels, own[0] if own else None)
        if not any(found.values()):
            raise UserError(f"--baseline is {baseline!r}; expected one of {', '.join(labels)}")
        return cls(sources, found)

    @cached_property
    def frame(self) -> pd.DataFrame:
        return pd.concat([source.frame for source in self.sources], ignore_index=True)

    @cached_property
    def summary(self) -> pd.DataFrame:
        return pd.DataFrame(
            [
                metrics.decoder_row(self.frame, label, source.asked, self.baselines[label])
                for source in self.sources
                for label in source.labels
            ]
        )

    @cached_property
    def by_category(self) -> pd.DataFrame:
        return metrics.by(self.frame, "category", self.baselines)

    @cached_property
    def by_turn(self) -> pd.DataFrame:
        return metrics.by(self.frame, "turn", self.baselines)

    @cached_property
    def acceptance(self) -> pd.DataFrame:
        return metrics.acceptance_table(self.frame, self.baselines)

    @cached_property
    def spec_bench(self) -> list[dict]:
        return [
            metrics.spec_bench_row(self.frame, label, baseline)
            for label, baseline in self.baselines.items()
        ]

    @cached_property
    def by_question(self) -> dict[str, pd.Series]:
        """Wall-clock ratios [questions] of the decoders that have a baseline and times."""
        ratios = {
            label: metrics.wall_clock_ratio_by_question(self.frame, label, baseline)
            for label, baseline in self.baselines.items()
            if baseline not in (None, label)
        }
        return {label: ratio for label, ratio in ratios.items() if ratio.notna().any()}

    @cached_property
    def repeatability(self) -> dict[str, pd.Series]:
        """Of the baselines that `by_question` is to, the ratios [questions] to themselves; none without several choices."""
        names = dict.fromkeys(
            baseline for label, baseline in self.baselines.items() if label in self.by_question
        )
        ratios = {name: metrics.repeatability_by_question(self.frame, name) for name in names}
        return {name: ratio for name, ratio in ratios.items() if len(ratio)}

    @property
    def warnings(self) -> list[str]:
        return [said for source in self.sources for said in source.warnings] + incomparable(
            self.sources
        )

    def tables(self) -> list[tables.Table]:
        made = [tables.headline(self.summary)]
        for table, column in ((self.by_category, "category"), (self.by_turn, "turn")):
            if len(table) and table[column].nunique() > 1:
                made.append(tables.by_group(table, column))
        if self.by_question and self.frame.question_id.nunique() > 1:
            made.append(tables.by_question(self.by_question, self.repeatability))
        made += [
            tables.acceptance(self.acceptance, self.summary),
            tables.spec_bench(self.spec_bench),
        ]
        return [table for table in made if table.shown().shape[1] > 1]

    def verdicts(self) -> list[str]:
        if set_differently(self.sources):
            return []
        environments = [source.environment for source in self.sources]
        one_machine = all(each is not None and each == environments[0] for each in environments)
        return tables.verdicts(self.frame, self.summary, one_machine)

    def draw(self, folder: Path) -> list[Figure]:
        """Every figure that applies, into `folder`."""
        options = {label: own for source in self.sources for label, own in source.options.items()}
        return draw_all(folder, self.frame, self.summary, self.by_category, self.baselines, options)

    def page(self, figures: Sequence[Figure]) -> Page:
        """What report.html shows."""
        asked: dict[int, set] = {}  # by question: its texts, each way that a source has them
        for source in self.sources:
            for question_id, texts in source.questions.items():
                asked.setdefault(question_id, set()).add(tuple(texts))
        runs = [(source.name, source.record.run) for source in self.sources if source.record]
        title = " / ".join(source.name for source in self.sources)
        if len(self.sources) == len(runs) == 1:
            title = f"{runs[0][1]['model']['name']} on {runs[0][1]['questions']['name']}"
        return Page(
            title=title if len(title) < 120 else f"{len(self.sources)} sources side by side",
            tables=self.tables(),
            figures=figures,
            conditions={name: conditions_of(run) for name, run in runs},
            baselines=self.baselines,
            turns=[turn for source in self.sources for turn in source.turns],
            questions={
                question_id: texts.pop() for question_id, texts in asked.items() if len(texts) == 1
            },
            trees={key: trees for source in self.sources for key, trees in source.trees.items()},
            words=self.verdicts(),
            notes=self.warnings,
        )

    def json(self) -> str:
        """All numbers, for a program; null where there is none."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "sources": [
                {
                    "name": each.name,
                    "decoders": each.labels,
                    "complete": each.complete,
                    "environment": each.environment,
                }
                for each in self.sources
            ],
            "warnings": self.warnings,
            "verdicts": self.verdicts(),
            "decoders": self.summary.to_dict("records"),
            "by_category": self.by_category.to_dict("records"),
            "by_turn": self.by_turn.to_dict("records"),
            "wall_clock_ratio_by_question": _by_question_id(self.by_question),
            "repeatability_by_question": _by_question_id(self.repeatability),
            "acceptance_by_depth": self.acceptance.to_dict("records"),
            "spec_bench": self.spec_bench,
        }
        return json.dumps(_without_nan(record), indent=1, ensure_ascii=False, allow_nan=False)

    def show(self, form: str) -> None:
        """On stdout, in one of `tables.FORMATS`."""
        if form == "json":
            print(self.json())
            return
        for table in self.tables():
            if form == "terminal":
                table.print()
            else:
                print(table.markdown() if form == "markdown" else table.latex())
        lines = self.verdicts()
        if form == "latex":
            lines = [f"% {line}" for line in lines]
        elif form == "markdown":
            lines = [f"- {tables.escaped(line)}" for line in lines]
        print("\n".join(lines))


def _by_question_id(ratios: Mapping[str, pd.Series]) -> dict[str, dict[str, float]]:
    return {
        label: {str(question_id): each for question_id, each in ratio.items()}
        for label, ratio in ratios.items()
    }


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def derive(folder: Path) -> Report:
    """Write summary.csv, figures/, report.html and answers/ of a run; returns what they say.

    Says on stderr which decoders have turns that failed or are missing. UserError where no turn is finished.
    """
    report = Report.of([open_run(folder)])
    for said in report.warnings:
        warn(said)
    write_derived(report)
    return report


def write_derived(report: Report) -> None:
    """What is derived from a single run, into its folder."""
    record = report.sources[0].record
    try:
        write_summary(record.folder, report)
        write_answers(record.folder, record.run, report.sources[0].turns)
    except OSError as error:
        raise UserError(
            f"{error.filename or record.folder} cannot be written: {error.strerror}; the turns are kept, and "
            f"python -m bench.report {record.folder} makes the rest again"
        ) from error


def write_summary(folder: Path, report: Report) -> None:
    """summary.csv, figures/ and report.html."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "summary.csv", report.summary.to_csv(index=False))
    write_page(folder / "report.html", report.page(report.draw(folder / "figures")))


def model_id(run: dict, decoder: str) -> str:
    """The name of one decoder's answers: the model and what the decoder is, in characters that any file system takes."""
    return safe_name(f"{run['model']['name']}-{decoder}")


def write_answers(folder: Path, run: dict, turns: Sequence[Turn]) -> None:
    """FastChat answer files, one a decoder."""
    (folder / "answers").mkdir(exist_ok=True)
    for decoder in run["config"]["decoders"]:
        name = model_id(run, decoder)
        lines = map(json_line, answer_rows(run, turns, decoder, name))
        write_atomically(folder / "answers" / f"{name}.jsonl", "".join(lines))


def answer_rows(run: dict, turns: Iterable[Turn], decoder: str, name: str) -> list[dict]:
    """One decoder's answers in FastChat's format, as those of model `name`, by question_id.

    A question counts when every one of its turns was finished: a failed turn is never written as an answer. UserError where
    the run does not ask it.
    """
    by_question: dict[int, dict[int, list[Turn]]] = {}
    for turn in sorted(
        (t for t in turns if t.decoder == decoder and not t.failed), key=lambda t: t.key
    ):
        by_question.setdefault(turn.question_id, {}).setdefault(turn.choice, []).append(turn)
    rows = []
    for question_id, choices in by_question.items():
        asked = run["question_turns"].get(str(question_id))
        if asked is None:
            raise UserError(
                f"there are turns of question {question_id}, which the run.json beside them does not ask"
            )
        if len(choices) < run["config"]["num_choices"] or any(
            len(c) < asked for c in choices.values()
        ):
            continue
        rows.append(
            {
                "question_id": question_id,
                "answer_id": shortuuid.uuid(
                    f"{run['start']}/{name}/{question_id}"
                ),  # the same whenever derived again
                "model_id": name,
                "choices": [_choice(index, each) for index, each in choices.items()],
                "tstamp": run["start_unix"],
            }
        )
    return rows


def _choice(index: int, turns: list[Turn]) -> dict:
    return {
        "index": index,
        "turns": [turn.text for turn in turns],
        "idxs": [
            len(turn.accept_lengths) - 1 for turn in turns
        ],  # MEDUSA's field: the index of the last step
        "new_tokens": [len(turn.token_ids) for turn in turns],
        "wall_time": [turn.prefill_s + turn.decode_s for turn in turns],
        "decoding_steps": [len(turn.accept_lengths) for turn in turns],
        "accept_lengths": [length for turn in turns for length in turn.accept_lengths],
    }


def print_summary(report: Report, title: str) -> None:
    """The headline on the terminal: the table, and what leads by how much."""
    replace(tables.headline(report.summary), title=title).print()
    for line in report.verdicts():
        print(line)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What cannot be written below a folder that --out named is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{error.filename or folder} cannot be written: {error.strerror}; give another --out"
        ) from error


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "python -m bench.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add(
        "inputs",
        type=Path,
        nargs="*",
        metavar="RUN_OR_ANSWERS",
        help="folder of a run, answer file, or folder of answer files",
    )
    add("--format", choices=tables.FORMATS, default="terminal", help="(default: terminal)")
    add(
        "--baseline",
        metavar="NAME",
        help="what ratios are to: a decoder, or a name of the table (default: greedy, in each run)",
    )
    add(
        "--questions",
        help="the set that answer files answer, for their categories: a name or a .jsonl file",
    )
    add(
        "--out",
        type=Path,
        help="folder for report.html, summary.csv and figures/ (default: the run's own, where one run is given)",
    )
    add(
        "--phases",
        type=Path,
        metavar="FILE",
        help="draw the JSON file that scripts/bench_step.py writes",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """`arguments`: the command line's by default."""
    args = parser().parse_args(arguments)
    if not args.inputs and args.phases is None:
        raise UserError(
            "nothing to report: give the folder of a run or an answer file (--help shows examples)"
        )
    if args.phases is not None:
        with writing(args.out or args.phases.parent):
            figure = draw_phases(args.phases, args.out or args.phases.parent)
        print(figure.path, file=sys.stderr)
    if not args.inputs:
        return 0
    sources, failed, status = [], [], 0
    for path in args.inputs:
        opened, wrong = open_sources(path, args.questions)
        sources += opened
        failed += wrong
        if (
            opened and (path / "run.json").exists() and opened[0].record is None
        ):  # its answer files, instead of the run
            status = 1
    if not sources and len(failed) == 1:
        raise failed[0]
    for error in failed:
        if isinstance(error, NoNumbers):
            warn(f"{error}; it is left out")
        else:
            print(f"error: {error}", file=sys.stderr)
            status = 1
    if not sources:
        raise UserError("none of these can be shown")
    report = Report.of(sources, args.baseline)
    for said in report.warnings:
        warn(said)
    report.show(args.format)
    if args.out is not None:
        with writing(args.out):
            write_summary(args.out, report)
        print(f"{args.out}: summary.csv, figures/, report.html", file=sys.stderr)
    elif len(sources) == 1 and sources[0].record is not None:
        write_derived(report)
        print(
            f"{sources[0].record.folder}: summary.csv, figures/, answers/, report.html",
            file=sys.stderr,
        )
    return status


if __name__ == "__main__":
    exit_cleanly(main)
