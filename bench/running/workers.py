"""Several models answering at once, through Ray: on this machine or on an existing cluster.

    python -m bench.run --workers 4                             a GPU each, or a share of the cores
    python -m bench.run --workers 2 --device balanced --gpus 4  each model over four GPUs
    python -m bench.run --workers 8 --ray-address auto          on this machine's cluster

A worker is a process with a `Runner` of its own. Jobs (question x choice x decoder) are handed out
as workers become free, and only the process that started them writes. A worker that dies is
replaced, and its job goes on with the turn that was interrupted. A sample's seed depends on
(question, choice, turn) alone, so a turn is the same wherever it is computed.

On a cluster, its other machines need this package with its plug-ins, the model and any tree files,
all under the same names.
"""

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tqdm import tqdm

from bench.common.errors import UserError
from bench.inputs.questions import Question
from bench.running.cluster import connect, cpus_each, gpus_each
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.digests import digests_of
from bench.running.environment import git_state
from bench.running.jobs import Job, failed_turn
from bench.running.runner import Runner
from bench.running.step_times import AutoTimes
from bench.store.run_record import Difference
from bench.store.turn import Key, Turn

ATTEMPTS = 3  # Deaths of workers in one turn, after which it is recorded as failed.
PATIENCE_S = 60.0  # The wait for a cluster whose cores or GPUs are in use.


class _Actor:
    """The object in a worker's process."""

    def __init__(
        self,
        config: RunConfig,
        folder: str,
        threads: int | None,
        times: AutoTimes | None,
        began: datetime | None,
    ) -> None:
        self.runner: Runner | None = None
        self.config, self.folder, self.threads = config, folder, threads
        self.times, self.began = times, began
        self.code: dict[str, object] = {}  # See `_code`.

    def ready(self, questions: Sequence[Question]) -> dict[str, object]:
        """Load the model, and warm up unless there are no questions to do it with.

        Returns the facts of this worker for run.json, and its `code`.
        """
        if self.runner is None:
            if Path(self.folder).is_dir():  # Relative paths count from where the command was given.
                os.chdir(self.folder)
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            decoders = make_decoders(self.config)
            self.code = _code(digests_of(decoders))
            self.runner = Runner.load(self.config, decoders, self.times, self.began)
        if questions:
            self.runner.warm_up(questions)
        return self.runner.facts() | {"code": self.code}

    def turns_of(self, job: Job) -> Iterator[Turn]:
        assert self.runner is not None
        yield from self.runner.turns_of(job)

    def question_warnings(self, questions: Sequence[Question]) -> list[str]:
        assert self.runner is not None
        return self.runner.question_warnings(questions)

    def first_difference(self, *about: object) -> Difference:
        assert self.runner is not None
        return self.runner.first_difference(*about)


def _code(digests: dict[str, dict]) -> dict[str, object]:
    """What decides how this process decodes: its commit, if that is known, and the digests."""
    git = git_state()
    return digests | ({"commit": git} if git["commit"] else {})


@dataclass(eq=False)
class _Worker:
    """One of the workers. Its process may be replaced by another."""

    number: int  # From 0 on. Also that of its share of the placement group.
    actor: object  # Ray's handle of an `_Actor`.


@dataclass(eq=False)
class _Work:
    """Which worker does which job at the moment."""

    waiting: deque[Job]
    idle: deque[_Worker]
    # Ray's handle of the awaited result -> worker and job. None: the worker is getting ready.
    busy: dict[object, tuple[_Worker, Job | None]] = field(default_factory=dict)
    deaths: Counter[Key] = field(default_factory=Counter)  # Workers that died in each turn.


class Workers:
    """A crew of `count` Ray workers. UserError where the cluster has no room for them."""

    def __init__(
        self,
        config: RunConfig,
        count: int,
        address: str | None,
        digests: dict[str, dict],
        times: AutoTimes | None = None,
        began: datetime | None = None,
    ) -> None:
        """digests: of this process's decoders. times, began: see `Runner.load`."""
        self.config, self.times, self.began = config, times, began
        self._code = _code(digests)
        self.questions: Sequence[Question] = ()  # A replacement warms up with these.
        connect(address, count)
        try:
            self._claim(count)
            self.workers = [_Worker(number, self._start(number)) for number in range(count)]
            self._facts = self._ready(None)
            self._check()
        except BaseException:
            ray.shutdown()
            raise

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()  # Ends the workers, on a cluster, too.

    def _claim(self, count: int) -> None:
        """Take the cores and GPUs of all workers before any of them starts.

        Ray would wait silently for a worker that does not fit. UserError says so instead.
        """
        device = self.config.device
        gpus = gpus_each(self.config)
        cpus = cpus_each(count, gpus)
        if device == "auto" and not gpus:
            self.config = replace(self.config, device="cpu")
        self._threads = None if gpus else cpus
        self._group = placement_group(
            [{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}] * count
        )
        if not self._group.wait(PATIENCE_S):
            raise UserError(
                f"the cluster has room for {count} workers, but not now; wait until other work on "
                "it has ended, or use fewer --workers"
            )
        self._options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}

    def _start(self, number: int) -> object:
        """Start the process of a worker. Returns Ray's handle of it."""
        strategy = PlacementGroupSchedulingStrategy(
            self._group, placement_group_bundle_index=number
        )
        actor = ray.remote(**self._options)(_Actor).options(scheduling_strategy=strategy)
        return actor.remote(self.config, os.getcwd(), self._threads, self.times, self.began)

    def _ready(self, questions: Sequence[Question]) -> list[dict]:
        """The facts of all workers, once each has loaded the model and warmed up."""
        try:
            return ray.get([worker.actor.ready.remote(questions) for worker in self.workers])
        except RayTaskError as error:
            raise _as_user_error(error) from error
        except RayError as error:
            raise UserError(
                f"a worker died while it was getting ready ({type(error).__name__}); is there "
                f"memory for {len(self.workers)} models? Use fewer --workers"
            ) from error

    def _check(self) -> None:
        """Compare the workers. UserError where they have different models or decoders."""
        first = self._facts[0]
        if any(facts["model"] != first["model"] for facts in self._facts):
            raise UserError(
                f"the workers have different files for model {self.config.model!r}; make them the "
                "same everywhere"
            )
        for facts in self._facts:
            self._check_code(facts)
        self.warnings = list(first["warnings"])
        if any(facts["environment"] != first["environment"] for facts in self._facts):
            self.warnings.append(
                "the workers run on different machines: times are a mixture, tokens per inference "
                "compare anyway"
            )
        elif self._threads is not None and len(self.workers) > 1:
            self.warnings.append(
                f"{len(self.workers)} workers share the cores ({self._threads} threads each): they "
                "slow each other down, so compare no times with another run's; tokens per "
                "inference compare anyway"
            )

    def _check_code(self, facts: dict) -> None:
        """UserError where a worker's program or decoders are not those of this process."""
        if differing := _differing(self._code, facts["code"]):
            raise UserError(
                f"a worker has another version of this program or of what decoders use "
                f"({', '.join(differing)}); make them the same everywhere"
            )

    def _check_replacement(self, facts: dict) -> None:
        """UserError where the worker that replaces a dead one has another model or other code."""
        self._check_code(facts)
        if facts["model"] != self._facts[0]["model"]:
            raise UserError(
                f"model {self.config.model!r} has changed since the run began: the worker that "
                "replaces a dead one has another model or tokenizer; every finished turn is kept"
            )

    def facts(self) -> dict[str, object]:
        """The facts of the first worker, and by worker those that may differ.

        Each worker measures its own step times, so the run as a whole has none.
        """
        first = {name: value for name, value in self._facts[0].items() if name != "code"}
        return {
            **first,
            "environment": first["environment"] | {"workers": len(self.workers)},
            "step_times": None,
            "step_times_spread": None,
            "draft_times": None,
            "workers": [
                {
                    **{n: value for n, value in facts["environment"].items() if n != "workers"},
                    "step_times": facts["step_times"],
                    "step_times_spread": facts["step_times_spread"],
                    "draft_times": facts["draft_times"],
                }
                for facts in self._facts
            ],
            "warnings": self.warnings,
        }

    def question_warnings(self, questions: Sequence[Question]) -> list[str]:
        """Those of one worker. All have the same model."""
        return self._ask_any("question_warnings", questions) or []

    def warm_up(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self._ready(questions)

    def answers(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> Iterator[Turn]:
        work = _Work(deque(jobs), deque(self.workers))
        while True:
            if stopping():
                work.waiting.clear()
            if not work.waiting and not any(job for _, job in work.busy.values()):
                return
            self._hand_out(work)
            [event], _ = ray.wait(list(work.busy), num_returns=1)
            worker, job = work.busy.pop(event)
            try:
                result = ray.get(event if job is None else next(event))
            except StopIteration:  # The job has no further turn.
                work.idle.append(worker)
            except RayTaskError as error:
                raise _as_user_error(error) from error
            except RayError as error:
                failed = self._died(work, worker, job, type(error).__name__)
                if failed is not None:
                    yield failed
            else:
                if job is None:
                    self._check_replacement(result)
                    work.idle.append(worker)
                    continue
                if not stopping():  # Else its next turn may have begun, and is not waited for.
                    done = {**job.done, result.turn: result.text}
                    work.busy[event] = worker, replace(job, done=done)
                yield result

    def _hand_out(self, work: _Work) -> None:
        """Give waiting jobs to idle workers. UserError where no worker is left."""
        while work.waiting and work.idle:
            worker, job = work.idle.popleft(), work.waiting.popleft()
            turns = worker.actor.turns_of.options(num_returns="streaming").remote(job)
            work.busy[turns] = worker, job
        if not work.busy:
            raise UserError(
                "no worker is left; every finished turn is kept, and the same command goes on from "
                "there"
            )

    def _died(self, work: _Work, worker: _Worker, job: Job | None, kind: str) -> Turn | None:
        """Replace a worker that died, and put its job at the head of the queue.

        A worker that died before it was ready is not replaced.

        kind: the error's class. Returns the failed turn where ATTEMPTS workers died in it. None: it
        is tried again.
        """
        if job is None:
            _say(f"a worker died again before it was ready ({kind}), and is not replaced")
            return None
        question_id = job.question.question_id
        _say(f"a worker died ({kind}) at question {question_id}, {job.decoder}; it is replaced")
        work.busy[self._replace(worker)] = worker, None
        number = next((number for number in job.turns if number not in job.done), None)
        if number is None:
            return None
        work.deaths[job.key(number)] += 1
        if work.deaths[job.key(number)] < ATTEMPTS:
            work.waiting.appendleft(job)
            return None
        why = (
            f"{ATTEMPTS} workers died in this turn: a crash in native code, no memory, or killed "
            "from outside"
        )
        return failed_turn(self.config, job, number, f"{kind}: {why}")

    def _replace(self, worker: _Worker) -> object:
        """Start a new process in place of a dead one. Returns the handle of its getting ready."""
        ray.kill(worker.actor)  # It may be alive, but unreachable.
        worker.actor = self._start(worker.number)
        return worker.actor.ready.remote(self.questions)

    def peak_bytes(self) -> None:
        """None: the workers' memory is not known here."""

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> Difference:
        found = self._ask_any("first_difference", asked, answered, turn, base)
        return Difference.of(turn.key) if found is None else found

    def _ask_any(self, method: str, *given: object) -> object:
        """What a method of `_Actor` returns, from the first worker that is alive. None: none is."""
        for worker in self.workers:
            try:
                return ray.get(getattr(worker.actor, method).remote(*given))
            except RayTaskError:
                raise
            except RayError:
                continue
        return None


def _differing(ours: dict, theirs: dict) -> list[str]:
    """Names of what differs. A commit that one of the two does not know is not compared."""
    names = sorted((ours.keys() | theirs.keys()) - {"commit"})
    if "commit" in ours and "commit" in theirs:
        names.append("commit")
    return [name for name in names if ours.get(name) != theirs.get(name)]


def _as_user_error(error: RayTaskError) -> Exception:
    """A worker's UserError as one of this process. Any other error as it is."""
    return UserError(str(error.cause)) if isinstance(error.cause, UserError) else error


def _say(text: str) -> None:
    """Print a line beside the progress bar."""
    tqdm.write(text, file=sys.stderr)
