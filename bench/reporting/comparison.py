"""Compares sources: their numbers, tables, figures and page, and warnings where they differ."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench import metrics
from bench.common import media
from bench.common.errors import UserError, warn
from bench.common.files import refuse_links, write_atomically
from bench.common.waiting import patience
from bench.reporting import tables
from bench.reporting.figures import Figure, draw_all
from bench.reporting.page import Page, conditions_of, remark_on, write_page
from bench.reporting.sources import CONDITIONS, Source, open_run
from bench.store.answer_files import write_answers

SCHEMA_VERSION = 1  # Of --format json.
LONGEST_TITLE = 120  # Characters of a page's title.


@dataclass(frozen=True, eq=False)
class Report:
    """Sources side by side, and the baseline of each label."""

    sources: Sequence[Source]
    baselines: dict[str, str | None]  # Label -> label. None: it has no baseline.

    @classmethod
    def of(cls, sources: Iterable[Source], baseline: str | None = None) -> "Report":
        """The report of some sources.

        baseline: a label that all are compared with, or a decoder, which is looked for in each
        source. None: greedy of the same source. UserError where it is neither.
        """
        sources = side_by_side(sources)
        labels = [label for source in sources for label in source.labels]
        if baseline in labels:
            return cls(sources, dict.fromkeys(labels, baseline))
        baselines: dict[str, str | None] = {}
        for source in sources:
            found = source.baseline if baseline is None else _find(baseline, source)
            baselines |= dict.fromkeys(source.labels, found)
        if baseline is not None and not any(baselines.values()):
            raise UserError(f"--baseline is {baseline!r}; expected one of {', '.join(labels)}")
        return cls(sources, baselines)

    # --- Numbers ----------------------------------------------------------------------------------

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The turns of all sources. Its columns are `metrics.COLUMNS`."""
        return pd.concat([source.frame for source in self.sources], ignore_index=True)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A `metrics.decoder_row` for each label."""
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
        """Label -> wall-clock ratios by question, for labels that have a baseline and times."""
        ratios = {
            label: metrics.wall_clock_ratio_by_question(self.frame, label, baseline)
            for label, baseline in self.baselines.items()
            if baseline not in (None, label)
        }
        return {label: ratio for label, ratio in ratios.items() if ratio.notna().any()}

    @cached_property
    def repeatability(self) -> dict[str, pd.Series]:
        """Label -> ratios to itself by question, for the baselines that `by_question` uses.

        A baseline with one choice a question has none.
        """
        names = dict.fromkeys(
            baseline for label, baseline in self.baselines.items() if label in self.by_question
        )
        ratios = {name: metrics.repeatability_by_question(self.frame, name) for name in names}
        return {name: ratio for name, ratio in ratios.items() if len(ratio)}

    # --- Words, tables and figures ----------------------------------------------------------------

    @property
    def warnings(self) -> list[str]:
        of_sources = [warning for source in self.sources for warning in source.warnings]
        return of_sources + incomparable(self.sources)

    def verdicts(self) -> list[str]:
        """Sentences on which label leads, and by how much. Empty: the runs were set differently."""
        if set_differently(self.sources):
            return []
        environments = [source.environment for source in self.sources]
        one_machine = all(each is not None and each == environments[0] for each in environments)
        return tables.verdicts(self.frame, self.summary, one_machine)

    def tables(self) -> list[tables.Table]:
        """All tables that have a number, the headline first."""
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
        return [table for table in made if table.used_cells().shape[1] > 1]

    def draw(self, folder: Path) -> list[Figure]:
        """Draw every figure that applies into `folder`."""
        options = {label: own for source in self.sources for label, own in source.options.items()}
        return draw_all(folder, self.frame, self.summary, self.by_category, self.baselines, options)

    def page(self, figures: Sequence[Figure]) -> Page:
        """What report.html shows."""
        runs = {source.name: source.run for source in self.sources if source.run is not None}
        return Page(
            title=self._title(),
            tables=self.tables(),
            figures=figures,
            conditions={name: conditions_of(run) for name, run in runs.items()},
            baselines=self.baselines,
            turns=[turn for source in self.sources for turn in source.turns],
            questions=self._questions(),
            trees={key: trees for source in self.sources for key, trees in source.trees.items()},
            verdicts=self.verdicts(),
            warnings=self.warnings,
            remark=remark_on(runs.values()),
        )

    def _title(self) -> str:
        if len(self.sources) == 1 and (run := self.sources[0].run) is not None:
            title = f"{run.model.name} on {run.questions.name}"
        else:
            title = " / ".join(source.name for source in self.sources)
        fits = len(title) < LONGEST_TITLE
        return title if fits else f"{len(self.sources)} sources side by side"

    def _questions(self) -> dict[int, Sequence[str]]:
        """question_id -> its texts, where all sources that know them agree."""
        versions: dict[int, set[tuple[str, ...]]] = {}
        for source in self.sources:
            for question_id, texts in source.questions.items():
                versions.setdefault(question_id, set()).add(tuple(texts))
        return {
            question_id: texts.pop() for question_id, texts in versions.items() if len(texts) == 1
        }

    # --- Output -----------------------------------------------------------------------------------

    def json(self) -> str:
        """All numbers, for a program. A number that is unknown is null."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "sources": [
                {
                    "name": source.name,
                    "decoders": source.labels,
                    "complete": source.complete,
                    "environment": source.environment,
                }
                for source in self.sources
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
        """Print the report. form: terminal, markdown, latex or json."""
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
            lines = [f"% {media.one_line(line)}" for line in lines]
        elif form == "markdown":
            lines = [f"- {media.markdown(line)}" for line in lines]
        print(media.visible("\n".join(lines)))


def print_summary(report: Report, title: str) -> None:
    """Print the headline table under a title, and which label leads."""
    replace(tables.headline(report.summary), title=title).print()
    for line in report.verdicts():
        print(media.visible(line))


def _find(decoder: str, source: Source) -> str | None:
    """A source's first label whose decoder has this name or spec. None: there is none."""
    for label in source.labels:
        if decoder in (source.options[label]["decoder"], label.rpartition("/")[2]):
            return label
    return None


def _by_question_id(ratios: Mapping[str, pd.Series]) -> dict[str, dict[str, float]]:
    return {
        label: {str(question_id): value for question_id, value in ratio.items()}
        for label, ratio in ratios.items()
    }


def _without_nan(value: object) -> object:
    """A value for JSON: None if it is not finite, and Python's numbers in place of numpy's."""
    if isinstance(value, dict):
        return {key: _without_nan(member) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(member) for member in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- Files ----------------------------------------------------------------------------------------


def derive(folder: Path) -> Report:
    """Write what is derived from a run into its folder, and return it.

    Warns of what is wrong with the run. UserError where no turn is finished.
    """
    report = Report.of([open_run(folder)])
    for warning in report.warnings:
        warn(warning)
    write_derived(report)
    return report


def write_derived(report: Report) -> None:
    """Write summary.csv, figures/, report.html and answers/ of a single run into its folder."""
    source = report.sources[0]
    try:
        write_summary(source.folder, report)
        write_answers(source.folder, source.run, source.turns)
    except OSError as error:
        raise UserError(
            f"{error.filename or source.folder} cannot be written: {error.strerror}; the turns are "
            f"kept, and python -m bench.report {source.folder} makes the rest again"
        ) from error


def write_summary(folder: Path, report: Report) -> None:
    """Write summary.csv, figures/ and report.html.

    OSError where that fails, UserError where figures/ is a symbolic link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links([folder / "figures"])
    summary = report.summary.map(media.csv_cell)
    write_atomically(folder / "summary.csv", summary.to_csv(index=False))
    with patience("drawing figures"):
        write_page(folder / "report.html", report.page(report.draw(folder / "figures")))


# --- Do the sources compare? ----------------------------------------------------------------------


def side_by_side(sources: Iterable[Source]) -> list[Source]:
    """The same sources with labels that are unique among all of them.

    The labels of several sources become run/decoder. Those of a single source stay as they are.
    """
    sources = list(sources)
    if len(sources) < 2:
        return sources
    made: list[Source] = []
    for source in sources:
        taken = {other.name for other in made}
        name, copy = source.name, 1
        while name in taken:  # Two folders of one name.
            copy += 1
            name = f"{source.name} ({copy})"
        made.append(_renamed(source, name))
    return made


def _renamed(source: Source, name: str) -> Source:
    """The same source under another name, which its labels begin with."""
    is_file = source.labels == (source.name,)
    labels = {label: name if is_file else f"{name}/{label}" for label in source.labels}
    turns = (turn for turn in source.turns if turn.decoder in labels)
    trees = (answer for answer in source.trees.values() if answer.decoder in labels)
    moved = [replace(answer, decoder=labels[answer.decoder]) for answer in trees]
    return replace(
        source,
        name=name,
        frame=source.frame.assign(decoder=source.frame.decoder.map(labels)),
        labels=tuple(labels.values()),
        options={labels[label]: source.options[label] for label in source.labels},
        turns=tuple(replace(turn, decoder=labels[turn.decoder]) for turn in turns),
        trees={answer.key: answer for answer in moved},
    )


def set_differently(sources: Iterable[Source]) -> list[str]:
    """Conditions that differ between the sources that record them: "temperature 0.0, 0.7"."""
    recorded = [source.conditions for source in sources if source.conditions is not None]
    differing = []
    for name in CONDITIONS:
        values = list(dict.fromkeys(conditions[name] for conditions in recorded))
        if len(values) > 1:
            texts = ("by category" if value is None else str(value) for value in values)
            differing.append(f"{name} {', '.join(texts)}")
    return differing


def incomparable(sources: Sequence[Source]) -> list[str]:
    """Warnings where times, or the questions themselves, do not compare between sources."""
    warnings = []
    unknown = [source.name for source in sources if source.environment is None]
    if len(sources) > 1 and unknown:
        names = ", ".join(unknown) if len(unknown) < 4 else f"{len(unknown)} of these"
        warnings.append(
            f"what machine timed {names} is not recorded: compare times only where you know that "
            "it was the same; tokens per inference compare anyway"
        )
    first, *others = [source for source in sources if source.environment is not None] or [None]
    for other in others:
        if differences := _other_machine(first, other):
            warnings.append(
                "times do not compare, only tokens per inference: different machines or versions "
                f"({'; '.join(differences)})"
            )
    if differing := set_differently(sources):
        warnings.append(
            f"these runs were set differently, and none is said to lead: {'; '.join(differing)}"
        )
    for other in sources[1:]:
        if other.asked != sources[0].asked:
            warnings.append(
                f"{other.name} and {sources[0].name} answer different questions; only ratios of "
                "paired turns compare"
            )
    return warnings


def _other_machine(first: Source, other: Source) -> list[str]:
    """The differences between two sources' environments: "torch: 2.9 in a, 2.10 in b"."""
    differences = []
    for name in sorted(first.environment.keys() | other.environment.keys()):
        ours, theirs = first.environment.get(name), other.environment.get(name)
        if ours != theirs:
            differences.append(f"{name}: {ours} in {first.name}, {theirs} in {other.name}")
    return differences
