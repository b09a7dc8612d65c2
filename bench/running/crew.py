"""Who generates the turns of a run: one `Runner` in this process, or several behind Ray."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from bench.inputs.questions import Question
from bench.running.jobs import Job
from bench.store.turn import Turn


class Crew(Protocol):
    def facts(self) -> dict[str, object]:
        """What run.json says of it.

        `model`, `environment`, `step_times`, `draft_times`, and what else there is to say.
        """
        ...

    def warm_up(self, questions: Sequence[Question]) -> None:
        """Do what would otherwise be done for the first time while a turn is measured.

        questions: all that the run may ask. UserError where a decoder cannot run.
        """
        ...

    def answers(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> Iterator[Turn]:
        """The turns of the jobs that are not done, each as soon as it is there, in order by job.

        Once `stopping()`, only those that are under way.
        """
        ...

    def peak_bytes(self) -> int | None:
        """The most memory that it has taken. None: not known."""
        ...

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> str:
        """Where a turn's tokens leave the base's, and how near the tie was that made them."""
        ...
