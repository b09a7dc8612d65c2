"""Several models answering at once, through Ray: on this machine or on an existing cluster.

    python -m bench.run --workers 4                                     one model a GPU, or a share of the CPU's cores each
    python -m bench.run --workers 2 --device balanced --gpus 4          each model spread over four GPUs
    python -m bench.run --workers 8 --ray-address auto                  on the cluster that this machine belongs to

A worker is a process with a `Runner` of its own. Jobs (question x choice x decoder) are handed out as workers become free,
and turns come back to the one process that writes. A worker that dies is replaced and its job goes on from the turn it was
in; what it computes is the same wherever it is computed, as samples belong to (question, choice, turn).

On a cluster's other machines this package (with plug-ins), the model and any tree files must be there under the same names.
"""

import os
import signal
import socket
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from tqdm import tqdm

from bench.common.errors import UserError, warn
from bench.inputs.questions import Question
from bench.running.config import RunConfig
from bench.running.runner import Job, Runner, failed_turn
from bench.store.records import Turn

ATTEMPTS = 3  # deaths of workers in one turn, after which it is recorded as failed
PATIENCE_S = 60.0  # for a cluster that has what is needed, but not free


class _Actor:
    """A worker's process."""

    def __init__(self, config: RunConfig, folder: str, threads: int | None) -> None:
        self.runner: Runner | None = None
        self.config, self.folder, self.threads = config, folder, threads

    def ready(self, questions: Sequence[Question]) -> dict[str, object]:
        """Load the model, and warm up where there are questions to do it with; what run.json says of this worker."""
        if self.runner is None:
            if Path(self.folder).is_dir():  # relative paths count from where the command was given
                os.chdir(self.folder)
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            self.runner = Runner.of(self.config)
        if questions:
            self.runner.warm_up(questions)
        return self.runner.facts()

    def turns_of(self, job: Job) -> Iterator[Turn]:
        assert self.runner is not None
        yield from self.runner.turns_of(job)

    def first_difference(self, *about: object) -> str:
        assert self.runner is not None
        return self.runner.first_difference(*about)


@dataclass(eq=False)
class _Worker:
    """A place for a worker: the process may be replaced."""

    place: int
    actor: object


class Workers:
    """A crew of `count` Ray workers. UserError where the cluster has no room for them."""

    def __init__(self, config: RunConfig, count: int, address: str | None) -> None:
        self.config = config
        self.questions: Sequence[Question] = ()  # what a replacement warms up with
        _connect(address, count)
        try:
            self._claim(count)
            self.workers = [_Worker(place, self._start(place)) for place in range(count)]
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
        ray.shutdown()  # which ends the workers, on a cluster too

    def _claim(self, count: int) -> None:
        """Take the cores and GPUs of every worker before any of them starts: Ray would wait for them without a word."""
        device = self.config.device
        gpus = _gpus_each(self.config)
        cpus = _cpus_each(count, gpus)
        if device == "auto" and not gpus:
            self.config = replace(self.config, device="cpu")
        self._threads = None if gpus else cpus
        self._group = placement_group(
            [{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}] * count
        )
        if not self._group.wait(PATIENCE_S):
            raise UserError(
                f"the cluster has room for {count} workers, but not now; wait until other work on it has ended, or use fewer "
                "--workers"
            )
        self._options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}

    def _start(self, place: int) -> object:
        strategy = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=place)
        remote = ray.remote(**self._options)(_Actor).options(scheduling_strategy=strategy)
        return remote.remote(self.config, os.getcwd(), self._threads)

    def _ready(self, questions: Sequence[Question]) -> list[dict]:
        """All workers' facts, once they have loaded the model (and warmed up)."""
        try:
            return ray.get([worker.actor.ready.remote(questions) for worker in self.workers])
        except RayTaskError as error:
            raise _as_user_error(error) from error
        except RayError as error:
            raise UserError(
                f"a worker died while it was getting ready ({type(error).__name__}); is there memory for {len(self.workers)} "
                "models? Use fewer --workers"
            ) from error

    def _check(self) -> None:
        first = self._facts[0]
        if any(facts["model"] != first["model"] for facts in self._facts):
            raise UserError(
                f"the workers have different files for model {self.config.model!r}; make them the same everywhere"
            )
        self.warnings = []
        if any(facts["environment"] != first["environment"] for facts in self._facts):
            self.warnings.append(
                "the workers run on different machines: times are a mixture, tokens per inference compare anyway"
            )
        elif self._threads is not None and len(self.workers) > 1:
            self.warnings.append(
                f"{len(self.workers)} workers share the cores ({self._threads} threads each): they slow each other down, so "
                "compare no times with another run's; tokens per inference compare anyway"
            )
        for text in self.warnings:
            warn(text)

    def facts(self) -> dict[str, object]:
        """The first worker's, and by worker what may differ: each one measures its own step times, so the run has none."""
        first = self._facts[0]
        return {
            **first,
            "environment": first["environment"] | {"workers": len(self.workers)},
            "step_times": None,
            "draft_times": None,
            "workers": [
                {
                    "device": facts["environment"]["device"],
                    "threads": facts["environment"]["threads"],
                    "step_times": facts["step_times"],
                    "draft_times": facts["draft_times"],
                }
                for facts in self._facts
            ],
            "warnings": self.warnings,
        }

    def warm_up(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        self._ready(questions)

    def answers(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> Iterator[Turn]:
        waiting = deque(jobs)
        idle = deque(self.workers)
        deaths: Counter = Counter()  # by turn
        busy: dict[
            object, tuple[_Worker, Job | None]
        ] = {}  # by what is awaited: a job's turns, or that a worker is ready
        while True:
            if stopping():
                waiting.clear()
            if not waiting and not any(job for _, job in busy.values()):
                return
            while waiting and idle:
                worker, job = idle.popleft(), waiting.popleft()
                busy[worker.actor.turns_of.options(num_returns="streaming").remote(job)] = (
                    worker,
                    job,
                )
            if not busy:
                raise UserError(
                    "no worker is left; every finished turn is kept, and the same command goes on from there"
                )
            [event], _ = ray.wait(list(busy), num_returns=1)
            worker, job = busy.pop(event)
            try:
                turn = ray.get(event if job is None else next(event))
            except StopIteration:  # the job has no further turn
                idle.append(worker)
            except RayTaskError as error:
                raise _as_user_error(error) from error
            except RayError as error:
                if job is None:
                    _say(
                        f"a worker died again before it was ready ({type(error).__name__}), and is not replaced"
                    )
                    continue
                _say(
                    f"a worker died ({type(error).__name__}) at question {job.question.question_id}, {job.spec}; it is replaced"
                )
                busy[self._replace(worker)] = worker, None
                number = next((number for number in job.turns if number not in job.done), None)
                if number is None:
                    continue
                deaths[job.key(number)] += 1
                if deaths[job.key(number)] < ATTEMPTS:
                    waiting.appendleft(job)
                else:
                    why = f"{ATTEMPTS} workers died in this turn: a crash in native code, no memory, or killed from outside"
                    yield failed_turn(self.config, job, number, f"{type(error).__name__}: {why}")
            else:
                if job is None:
                    idle.append(worker)
                    continue
                if not stopping():  # else its next turn may have been begun, and is not waited for
                    busy[event] = worker, replace(job, done={**job.done, turn.turn: turn.text})
                yield turn

    def _replace(self, worker: _Worker) -> object:
        """Start a new process in a dead one's place; what to wait for until it is ready."""
        ray.kill(worker.actor)  # it may only have been out of reach
        worker.actor = self._start(worker.place)
        return worker.actor.ready.remote(self.questions)

    def peak_bytes(self) -> None:
        """Not known: the memory is the workers'."""

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> str:
        for worker in self.workers:
            try:
                return ray.get(worker.actor.first_difference.remote(asked, answered, turn, base))
            except RayTaskError:
                raise
            except RayError:
                continue
        return "where, no worker is left to say"


def _connect(address: str | None, count: int) -> None:
    """Join the cluster at `address`, or start one here with a core for each worker at least."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    at_end = signal.getsignal(signal.SIGTERM)  # which Ray would handle itself
    try:
        host, _, port = (address or "").rpartition(":")
        if host and port.isdecimal():  # Ray tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        if address is not None:
            ray.init(address=address, **quiet)
        else:
            cores = max(count, torch.get_num_threads())
            ray.init(
                address="local",
                num_cpus=cores,
                include_dashboard=False,
                object_store_memory=1 << 27,
                **quiet,
            )
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        what = (
            f"the cluster at {address!r} cannot be joined"
            if address
            else "no local cluster can be started"
        )
        raise UserError(f"Ray: {what}: {' '.join(str(error).split())[:300]}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, at_end)


def _gpus_each(config: RunConfig) -> int:
    """How many GPUs a worker needs; 0 for one on the CPU."""
    device = config.device
    if device == "balanced":
        if config.gpus is None:
            raise UserError(
                "--device balanced with --workers needs --gpus: the number of GPUs that each worker's model takes"
            )
        return config.gpus
    if device == "auto":
        return int(ray.cluster_resources().get("GPU", 0) > 0)
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"--device {device!r} names one device; workers share out all of them: use cuda, cpu or balanced"
        )
    return int(device == "cuda")


def _cpus_each(count: int, gpus: int) -> int:
    """The cores that a worker claims: an equal share of all on the CPU, one beside GPUs. UserError where they do not fit."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(cpus: int) -> int:
        by_cpu = [int(node.get("CPU", 0) // cpus) for node in nodes]
        by_gpu = [
            int(node.get("GPU", 0) // gpus) if gpus else cpu
            for node, cpu in zip(nodes, by_cpu, strict=True)
        ]
        return sum(map(min, by_cpu, by_gpu))

    if room(1) < count:
        has = f"{sum(n.get('CPU', 0) for n in nodes):.0f} CPUs and {sum(n.get('GPU', 0) for n in nodes):.0f} GPUs"
        needs = f"{gpus} GPUs and a CPU" if gpus else "a CPU"
        raise UserError(
            f"--workers is {count}, and each needs {needs} on one machine; Ray has {has} on {len(nodes)} machines: at most "
            f"{room(1)} workers"
        )
    most = 1 if gpus else int(max(node.get("CPU", 0) for node in nodes))
    return max(cpus for cpus in range(1, most + 1) if room(cpus) >= count)


def _as_user_error(error: RayTaskError) -> Exception:
    """What a worker raised, as it would have been raised here."""
    return UserError(str(error.cause)) if isinstance(error.cause, UserError) else error


def _say(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
