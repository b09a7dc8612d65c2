"""All numbers of a report, by label. Their formulas are in `bench.metrics`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from bench import metrics
from bench.reporting import alike
from bench.reporting.source import Source
from bench.store.run_record import Difference


@dataclass(frozen=True, eq=False)
class Numbers:
    """Sources side by side, the baseline of each label, and their numbers."""

    sources: Sequence[Source]
    baselines: dict[str, str | None]  # Label -> label. None: it has no baseline.

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The turns of all sources. Its columns are `metrics.COLUMNS`."""
        return pd.concat([source.frame for source in self.sources], ignore_index=True)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A `metrics.decoder_row` for each label.

        Answers of sources that do not compare are not compared, even where they are equal.
        """
        rows = []
        for label, source, home in self._with_homes():
            row = metrics.decoder_row(self.frame, label, source.asked, self.baselines[label])
            if home is not None and alike.unlike(source, home):
                row |= {"equal_answers": 0, "compared_answers": 0}
            rows.append(row)
        return pd.DataFrame(rows)

    @cached_property
    def unranked(self) -> set[str]:
        """Labels that are not said to be faster or slower than their baseline."""
        return {
            label
            for label, source, home in self._with_homes()
            if home is not None and not alike.may_rank(source, home)
        }

    def _with_homes(self) -> Iterator[tuple[str, Source, Source | None]]:
        """Each label, its source, and the source of its baseline, if it has one."""
        homes = {label: source for source in self.sources for label in source.labels}
        for label, baseline in self.baselines.items():
            yield label, homes[label], homes.get(baseline)

    @cached_property
    def by_category(self) -> pd.DataFrame:
        return metrics.by(self.frame, "category", self.baselines)

    @cached_property
    def by_turn(self) -> pd.DataFrame:
        return metrics.by(self.frame, "turn", self.baselines)

    @cached_property
    def by_answer_class(self) -> pd.DataFrame:
        """As `by_category`, for answers that repeat themselves and for the others."""
        return metrics.by_answer_class(self.frame, self.baselines)

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
        """Label -> ratios of decoding speed by question; of labels with a baseline and times."""
        return self._by_question("decode_s")

    @cached_property
    def by_question_with_prefill(self) -> dict[str, pd.Series]:
        """As `by_question`, but for whole turns, prefill included."""
        return self._by_question("wall_s")

    def _by_question(self, seconds: str) -> dict[str, pd.Series]:
        ratios = {
            label: metrics.wall_clock_ratio_by_question(self.frame, label, baseline, seconds)
            for label, baseline in self.baselines.items()
            if baseline not in (None, label)
        }
        return {label: ratio for label, ratio in ratios.items() if ratio.notna().any()}

    @cached_property
    def repeatability(self) -> dict[str, pd.Series]:
        """Label -> ratios to itself by question, for the baselines that `by_question` uses.

        A baseline with one choice a question has none.
        """
        return self._repeatability(self.by_question, "decode_s")

    @cached_property
    def repeatability_with_prefill(self) -> dict[str, pd.Series]:
        """As `repeatability`, but for whole turns, prefill included."""
        return self._repeatability(self.by_question_with_prefill, "wall_s")

    def _repeatability(
        self, by_question: Mapping[str, pd.Series], seconds: str
    ) -> dict[str, pd.Series]:
        names = dict.fromkeys(
            baseline for label, baseline in self.baselines.items() if label in by_question
        )
        ratios = {
            name: metrics.repeatability_by_question(self.frame, name, seconds) for name in names
        }
        return {name: ratio for name, ratio in ratios.items() if len(ratio)}

    @property
    def differences(self) -> list[Difference]:
        """Where lossless decoders differ from greedy of the same source, as far as recorded."""
        return [each for source in self.sources for each in source.differences or ()]
