"""The interface to what generates turns: one `Runner` in this process, or several in Ray."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from bench.inputs.questions import Question
from bench.running.jobs import Job
from bench.store.run_record import Difference
from bench.store.turn import Turn


class Crew(Protocol):
    def facts(self) -> dict[str, object]:
        """What run.json records of the crew.

        `model`, `environment`, `step_times`, `step_times_spread`, `draft_times`, `warnings`, and
        further facts of some crews.
        """
        ...

    def question_warnings(self, questions: Sequence[Question]) -> list[str]:
        """Warnings about what the prompts make of the questions."""
        ...

    def warm_up(self, questions: Sequence[Question]) -> None:
        """Run everything once that would otherwise run for the first time in a measured turn.

        questions: all that the run may ask. UserError where a decoder cannot run.
        """
        ...

    def answers(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> Iterator[Turn]:
        """Generate the turns of the jobs that are not done, and yield each at once.

        The turns of one job come in order. Once `stopping()` is true, only turns that have begun
        are finished.
        """
        ...

    def peak_bytes(self) -> int | None:
        """The most memory, in bytes, that the crew has taken. None: not known."""
        ...

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> Difference:
        """Where a turn's tokens first differ from the base's, and how close the scores were."""
        ...
