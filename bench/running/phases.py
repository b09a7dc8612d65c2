"""Where a step's time goes, and what it asks of the device: a profiling mode, never on during a timed run.

    draft     the heads' forward on one hidden row
    propose   choosing the tree
    verify    the base model's forward over its nodes, the mask included; `forward_s` is the model's own part of it, or the
              whole of a captured graph
    accept    which path is kept
    commit    moving its keys and values, the transfer to the host, cutting at a stop

On CUDA the edges between phases are events in the device's own queue: nothing waits for them, and where the host is late, the
device's idle time counts for the phase that it is in. Elsewhere the host's clock is read, the device synchronised. What
follows a forward is launched operation by operation here, also where it is otherwise captured and takes less.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import islice, pairwise

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.running.step_times import synchronise
from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.loop import Step, Stop

PHASES = ("draft", "propose", "verify", "accept", "commit")
# What makes the host wait for the device.
WAITS = (
    "tolist",
    "item",
    "__bool__",
    "__int__",
    "__float__",
    "__index__",
    "cpu",
    "numpy",
    "nonzero",
    "equal",
)


@dataclass(frozen=True)
class StepProfile:
    """One step: seconds by phase, or, of a step that was counted rather than timed, operations by phase."""

    phases: dict[str, float]
    forward: float  # of the base model alone: a part of verify
    nodes: int
    waits: int = 0  # times that the host waited for the device

    @property
    def total(self) -> float:
        return sum(self.phases.values())

    @property
    def outside(self) -> float:
        """Everything that is not the base model's own forward."""
        return self.total - self.forward


def timed_steps(decoder: Decoder, prompt: Tensor, steps: int) -> list[StepProfile]:
    """Seconds by phase of `steps` steps after `prompt` [prompt], at temperature 0; no end of text ends them."""
    _rehearse(decoder, prompt, steps)
    meter = _Events(decoder) if decoder.model.device.type == "cuda" else _Clock(decoder)
    return list(_profiled(decoder, prompt, steps, meter))


def counted_steps(decoder: Decoder, prompt: Tensor, steps: int) -> list[StepProfile]:
    """The same in tensor operations. Views, which compute nothing, are not counted, nor is what the model does itself."""
    _rehearse(decoder, prompt, steps)
    meter = _Operations(decoder)
    with meter, meter.waits:
        return list(_profiled(decoder, prompt, steps, meter))


class _Meter:
    """Notes where phases begin, and adds up between them what `now` reads."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.edges: list[tuple[str, object]] = []

    def now(self) -> object:
        raise NotImplementedError

    def between(self, before: object, after: object) -> float:
        return after - before

    def enter(self, phase: str) -> None:
        self.edges.append((phase, self.now()))

    def sums(self) -> Counter[str]:
        """By phase since the last call."""
        found: Counter[str] = Counter()
        for (phase, before), (_, after) in pairwise(self.edges):
            found[phase] += self.between(before, after)
        self.edges = self.edges[-1:]
        return found


class _Clock(_Meter):
    def now(self) -> float:
        synchronise(self.decoder.model.device)
        return time.perf_counter()


class _Events(_Meter):
    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.decoder.model.device))
        return event

    def between(self, before: torch.cuda.Event, after: torch.cuda.Event) -> float:
        after.synchronize()
        return before.elapsed_time(after) / 1e3


class _Waits(TorchFunctionMode):
    count = 0

    def __torch_function__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        self.count += getattr(function, "__name__", "") in WAITS
        return function(*args, **(kwargs or {}))


class _Operations(_Meter, TorchDispatchMode):
    def __init__(self, decoder: Decoder) -> None:
        TorchDispatchMode.__init__(self)
        _Meter.__init__(self, decoder)
        self.count = 0
        self.waits = _Waits()

    def now(self) -> float:
        return self.count

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        if self.edges and self.edges[-1][0] == "forward":
            return result
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = any(
            _address(leaf) not in given for leaf in tree_leaves(result) if isinstance(leaf, Tensor)
        )
        self.count += made or function._schema.is_mutable
        return result


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _decoding(decoder: Decoder, prompt: Tensor) -> Iterator[Step]:
    return decoder.decode(prompt, Exact(), Stop(frozenset(), decoder.model.context - len(prompt)))


def _rehearse(decoder: Decoder, prompt: Tensor, steps: int) -> None:
    """Static shapes are set up, and maybe captured, apart from the steps that are looked at."""
    if decoder.model.static_shapes:
        for _ in islice(_decoding(decoder, prompt), 1 + steps):
            pass


def _profiled(decoder: Decoder, prompt: Tensor, steps: int, meter: _Meter) -> Iterator[StepProfile]:
    decoder.captures = False  # a graph has no edges inside
    try:
        yield from _between_edges(decoder, prompt, steps, meter)
    finally:
        del decoder.captures


def _between_edges(
    decoder: Decoder, prompt: Tensor, steps: int, meter: _Meter
) -> Iterator[StepProfile]:
    model = decoder.model
    with (
        _around(decoder, "propose", meter, "propose", "commit"),
        _around(model, "guess", meter, "draft", "propose"),
        _around(model, "verify", meter, "verify", "accept"),
        _around(model.lm, "forward", meter, "forward", "verify"),
        _around(model, "run_static", meter, "forward", "verify"),
        _around(model, "keep", meter, "commit", "commit"),
    ):
        decoding = _decoding(decoder, prompt)
        next(decoding)  # its tree was proposed before the first edge
        waits = getattr(meter, "waits", _Waits())
        meter.enter("commit")
        meter.sums()
        for _ in range(steps):
            waited = waits.count
            step = next(decoding)
            meter.enter("commit")
            sums = meter.sums()
            forward = sums.pop("forward")
            sums["verify"] += forward
            yield StepProfile(
                {phase: sums[phase] for phase in PHASES}, forward, step.nodes, waits.count - waited
            )


@contextmanager
def _around(owner: object, method: str, meter: _Meter, during: str, after: str) -> Iterator[None]:
    """While this lasts, calls of `owner.method` are the phase `during`, and what follows them is `after`."""
    plain = getattr(owner, method)

    @wraps(plain)
    def call(*args: object, **kwargs: object) -> object:
        meter.enter(during)
        result = plain(*args, **kwargs)
        meter.enter(after)
        return result

    setattr(owner, method, call)
    try:
        yield
    finally:
        delattr(owner, method)
