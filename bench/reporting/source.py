"""What a report compares: turns that were generated together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from bench.common.media import one_line
from bench.store.question_id import QuestionId
from bench.store.run_record import Difference, Run
from bench.store.trees import AnswerTrees
from bench.store.turn import Key, Turn
from decoders.spec import BASELINE


@dataclass(frozen=True, eq=False)
class Source:
    """Turns that were generated together.

    A label is the name of a decoder in a report, unique among all sources.
    """

    name: str
    frame: pd.DataFrame  # Columns: `metrics.COLUMNS`. `frame.decoder` holds labels.
    labels: tuple[str, ...]  # In the order in which they are shown.
    asked: dict[QuestionId, int]  # question_id -> how many turns it has.
    options: dict[str, dict]  # Label -> its decoder's name and options; see `run_source._options`.
    environment: dict | None = None  # Machine and versions. None: not recorded.
    # What decides its tokens, by name: see `run_source._conditions`. None: not recorded.
    conditions: dict | None = None
    complete: bool = True  # Whether every turn was finished.
    is_mixed: bool = False  # Whether its sessions ran different code.
    has_moved: bool = False  # Whether they were on different machines or versions.
    warnings: tuple[str, ...] = ()
    folder: Path | None = None  # The run's folder. None: an answer file.
    file: Path | None = None  # The answer file. None: a run.
    namesake: str | None = None  # The earlier source that has its name. None: there is none.
    run: Run | None = None  # The run.json in `folder`.
    # Texts of all turns, failed ones included. Turns of an answer file have no numbers.
    turns: tuple[Turn, ...] = ()
    trees: Mapping[Key, AnswerTrees] = field(default_factory=dict)  # Those that were recorded.
    # Where lossless decoders differ from greedy. Their `decoder` is a label. None: not recorded.
    differences: tuple[Difference, ...] | None = None
    # question_id -> what the user says, turn by turn; where that is known.
    questions: Mapping[QuestionId, Sequence[str]] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """Where it was read."""
        return self.folder or self.file

    def own_name(self, label: str) -> str:
        """A label of this source without the name of the source, which several sources need."""
        return label.removeprefix(f"{self.name}/")

    @property
    def baseline(self) -> str | None:
        """The label of the source's own greedy decoder. None: it has none."""
        for label in self.labels:
            if self.options[label]["decoder"] == BASELINE:
                return label
        return None


def untimed(frame: pd.DataFrame, seconds: str) -> list[str]:
    """Warnings of decoders that have times for some of their turns only."""
    warnings = []
    for decoder, turns in frame.groupby("decoder", sort=False):
        unknown = turns[turns[seconds].isna()]
        if 0 < len(unknown) < len(turns):
            first = unknown.iloc[0]
            warnings.append(
                f"{decoder}: {len(unknown)} of {len(turns)} turns have no usable time, first "
                f"question {first.question_id}, turn {first.turn}; they are in no time"
            )
    return warnings


def shown_category(category: object) -> object:
    """A category as tables and figures show it. What is no text stays as it is."""
    return one_line(category) if isinstance(category, str) else category
