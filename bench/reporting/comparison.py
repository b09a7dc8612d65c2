"""Compares sources: their numbers, tables, figures and page, and warnings where they differ."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import pandas as pd

from bench.common import media
from bench.common.errors import UserError, warn
from bench.common.files import refuse_links, write_atomically, writing
from bench.common.waiting import patience
from bench.reporting import alike, drafting, report_tables, verdicts
from bench.reporting.browser_data import Asked
from bench.reporting.figures import Figure, draw_all, draw_drafting, draw_phases
from bench.reporting.numbers import Numbers
from bench.reporting.page import Page, conditions_of, remark_on, write_page
from bench.reporting.run_source import open_run
from bench.reporting.source import Source
from bench.reporting.tables import Table
from bench.store.answer_files import write_answers
from bench.store.question_id import QuestionId
from bench.store.step_profile import StepTable

SCHEMA_VERSION = 1  # The version of --format json.
LONGEST_TITLE = 120  # Characters of a page's title.


@dataclass(frozen=True, eq=False)
class Report(Numbers):
    """Sources side by side, the baseline of each label, and all that is said of them."""

    steps: StepTable | None = None  # Times of the decoders' steps, by phase.

    @classmethod
    def of(
        cls,
        sources: Iterable[Source],
        baseline: str | None = None,
        steps: StepTable | None = None,
    ) -> "Report":
        """The report of some sources.

        baseline: a label that all are compared with, or a decoder, which is looked for in each
        source. None: greedy of the same source. UserError where it is neither. A source that asks
        other questions than the baseline's has none. steps: adds what drafting costs.
        """
        sources = alike.side_by_side(sources)
        labels = [label for source in sources for label in source.labels]
        if baseline in labels:
            [home] = [source for source in sources if baseline in source.labels]
            return cls(
                sources,
                {
                    label: None if alike.asks_other_texts(source, home) else baseline
                    for source in sources
                    for label in source.labels
                },
                steps,
            )
        baselines: dict[str, str | None] = {}
        for source in sources:
            found = source.baseline if baseline is None else _find(baseline, source)
            baselines |= dict.fromkeys(source.labels, found)
        if baseline is not None and not any(baselines.values()):
            raise UserError(f"--baseline is {baseline!r}; expected one of {', '.join(labels)}")
        return cls(sources, baselines, steps)

    # --- Words, tables and figures ----------------------------------------------------------------

    @property
    def warnings(self) -> list[str]:
        # What several answer files have in common is said once.
        of_sources = dict.fromkeys(each for source in self.sources for each in source.warnings)
        of_steps: list[str] = []
        for source in self.sources if self.steps else ():
            of_steps += drafting.warnings_about(self.steps, source)
        return [*alike.incomparable(self.sources), *of_sources, *of_steps]

    def verdicts(self) -> list[str]:
        """Sentences on which label leads, and by how much. Empty: the sources do not compare."""
        if any(source.is_mixed for source in self.sources):
            return []
        if any(alike.unlike(*pair) for pair in combinations(self.sources, 2)):
            return []
        first = self.sources[0]
        one_machine = all(alike.timed_alike(first, source) for source in self.sources)
        return verdicts.sentences(self.frame, list(self.baselines), one_machine)

    def headline(self) -> Table:
        return report_tables.headline(self.summary, self.unranked, self._not_looked_for())

    def _not_looked_for(self) -> list[str]:
        """Labels with answers that differ from their run's greedy, and no record of where."""
        differing = self.summary.equal_answers < self.summary.compared_answers
        return [
            label
            for source in self.sources
            for label in self.summary.decoder[differing & self.summary.decoder.isin(source.labels)]
            if source.run is not None
            and source.run.config.is_lossless
            and source.differences is None
            and self.baselines[label] == source.baseline
        ]

    def tables(self) -> list[Table]:
        """All tables that have a number, the headline first."""
        made = []
        if self.differences:
            made.append(report_tables.differences(self.differences, self._dtypes()))
        groups = {
            "category": self.by_category,
            "turn": self.by_turn,
            "answer_class": self.by_answer_class,
        }
        for column, table in groups.items():
            if len(table) and table[column].nunique() > 1:
                made.append(report_tables.by_group(table, column))
        ratios = self.by_question_with_prefill
        if ratios and self.frame.question_id.nunique() > 1:
            made.append(report_tables.by_question(ratios, self.repeatability_with_prefill))
        made += [
            report_tables.acceptance(self.acceptance, self.summary, self._kinds()),
            report_tables.spec_bench(self.spec_bench),
        ]
        if self.drafting_rows is not None:
            made.append(report_tables.drafting(self.drafting_rows))
        shown = [self.headline(), *(report_tables.marked(each, self.unranked) for each in made)]
        return [table for table in shown if table.used_cells().shape[1] > 1]

    @cached_property
    def drafting_rows(self) -> pd.DataFrame | None:
        """What drafting costs, and brings. None: no step times of these decoders were given."""
        if self.steps is None:
            return None
        rows = drafting.drafting_rows(self.summary, self.steps, self.sources)
        return rows if len(rows) else None

    def _kinds(self) -> dict[str, str]:
        """Label -> the name of its decoder, without options."""
        return {
            label: own["decoder"]
            for source in self.sources
            for label, own in source.options.items()
        }

    def _dtypes(self) -> dict[str, str | None]:
        """Label -> the dtype that its model computes in, where that is recorded."""
        return {
            label: (source.environment or {}).get("dtype")
            for source in self.sources
            for label in source.labels
        }

    def draw(self, folder: Path) -> list[Figure]:
        """Draw every figure that applies into `folder`."""
        options: dict[str, dict] = {}
        placed: list[tuple[str, dict]] = []
        for source in self.sources:
            home = self._first_of_sweep(source).name
            for label, own in source.options.items():
                repeats = placed.count((home, own))  # A repeated sweep has a line of its own.
                placed.append((home, own))
                options[label] = own | {"run": f"{home} ({repeats + 1})" if repeats else home}
        tables = self.frame, self.summary, self.by_category
        made = draw_all(folder, *tables, self.baselines, options, self.unranked)
        if self.drafting_rows is not None:
            made.append(draw_drafting(folder, self.drafting_rows))
        if self.steps is not None:
            made.append(draw_phases(self.steps, folder))
        return made

    def _first_of_sweep(self, source: Source) -> Source:
        """The first source that may be in one line of a sweep with this one."""
        return next(each for each in self.sources if alike.swept_together(each, source))

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

    def _questions(self) -> dict[str, dict[QuestionId, Asked]]:
        """Label -> question_id -> what its source asks.

        A source that does not know its texts takes those of the sources that may ask the same,
        where these agree.
        """
        made: dict[str, dict[QuestionId, Asked]] = {}
        for source in self.sources:
            known = [source]
            if not source.questions:
                known = [each for each in self.sources if not alike.asks_other_texts(each, source)]
            # Of a run without texts, the digest of its file tells its questions from others.
            digest = source.run.questions.sha256 if source.run is not None else None
            asked: dict[QuestionId, Asked] = {}
            for question_id in source.asked:
                versions = {
                    tuple(each.questions[question_id])
                    for each in known
                    if question_id in each.questions
                }
                asked[question_id] = versions.pop() if len(versions) == 1 else digest or ""
            made |= dict.fromkeys(source.labels, asked)
        return made

    # --- Output -----------------------------------------------------------------------------------

    def json(self) -> str:
        """All numbers, as JSON. An unknown number is null."""
        drafted = self.drafting_rows
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
            "by_answer_class": self.by_answer_class.to_dict("records"),
            "wall_clock_ratio_by_question": _by_question_id(self.by_question),
            "repeatability_by_question": _by_question_id(self.repeatability),
            "wall_clock_ratio_with_prefill_by_question": _by_question_id(
                self.by_question_with_prefill
            ),
            "repeatability_with_prefill_by_question": _by_question_id(
                self.repeatability_with_prefill
            ),
            "differences": [each.as_json() for each in self.differences],
            "acceptance_by_depth": self.acceptance.to_dict("records"),
            "spec_bench": self.spec_bench,
            "drafting": [] if drafted is None else drafted.to_dict("records"),
        }
        return json.dumps(_without_nan(record), indent=1, ensure_ascii=False, allow_nan=False)

    def show(self, form: str) -> None:
        """Print the report. form: terminal, markdown, latex or json."""
        if form == "json":
            print(self.json())
            return
        if form == "terminal":  # Its warnings are on stderr.
            for table in self.tables():
                table.print()
            print(media.visible("\n".join(self.verdicts())))
            return
        if notes := alike.incomparable(self.sources):
            print(_as_lines(notes, form))
        for table in self.tables():
            print(table.markdown() if form == "markdown" else table.latex())
        print(_as_lines(self.verdicts(), form))


def _as_lines(sentences: Iterable[str], form: str) -> str:
    """Sentences as a list of Markdown, or as comments of LaTeX."""
    if form == "latex":
        return "".join(f"% {media.one_line(sentence)}\n" for sentence in sentences)
    return "".join(f"- {media.markdown(sentence)}\n" for sentence in sentences)


def print_summary(report: Report, title: str) -> None:
    """Print the headline table under a title, and which label leads."""
    replace(report.headline(), title=title).print()
    for line in report.verdicts():
        print(media.visible(line))


def _find(decoder: str, source: Source) -> str | None:
    """A source's label of this name, or its first one of a decoder of this name. None: none."""
    labels = [label for label in source.labels if source.own_name(label) == decoder]
    labels += [label for label in source.labels if source.options[label]["decoder"] == decoder]
    return next(iter(labels), None)


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
    kept = f"the turns are kept, and python -m bench.report {source.folder} makes the rest again"
    with writing(source.folder, kept):
        write_summary(source.folder, report)
        write_answers(source.folder, source.run, source.turns)


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
