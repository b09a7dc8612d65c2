"""Where a step's time goes, and what it asks of the device: a profiling mode, never on during a timed run.

The clock is read, the device synchronised, at every edge between two phases, which by itself makes a step on a GPU slower.

    draft     the heads' forward on one hidden row
    propose   choosing the tree
    verify    the base model's forward over its nodes, the mask included; `forward_s` is the model's own part of it
    accept    which path is kept
    commit    moving its keys and values, the transfer to the host, cutting at a stop
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps

from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.step_times import synchronise
from decoders.accept import Exact
from decoders.base import Decoder
from decoders.loop import Stop

PHASES = ("draft", "propose", "verify", "accept", "commit")
# What makes the host wait for the device.
WAITS = ("tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero", "equal")


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
    meter = _Clock(decoder)
    return list(_profiled(decoder, prompt, steps, meter))


def counted_steps(decoder: Decoder, prompt: Tensor, steps: int) -> list[StepProfile]:
    """The same in tensor operations. Views, which compute nothing, are not counted, nor is what the model does itself."""
    meter = _Operations(decoder)
    with meter, meter.waits:
        return list(_profiled(decoder, prompt, steps, meter))


class _Meter:
    """Adds up something by phase; `now` says how much of it there has been."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.phase = "commit"
        self.sums: Counter[str] = Counter()
        self.since = 0.0

    def now(self) -> float:
        raise NotImplementedError

    def enter(self, phase: str) -> None:
        now = self.now()
        self.sums[self.phase] += now - self.since
        self.phase, self.since = phase, now


class _Clock(_Meter):
    def now(self) -> float:
        synchronise(self.decoder.model)
        return time.perf_counter()


class _Waits(TorchFunctionMode):
    count = 0

    def __torch_function__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
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

    def __torch_dispatch__(self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        result = function(*args, **(kwargs or {}))
        if self.phase == "forward":
            return result
        given = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = any(_address(leaf) not in given for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        self.count += made or function._schema.is_mutable
        return result


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _profiled(decoder: Decoder, prompt: Tensor, steps: int, meter: _Meter) -> Iterator[StepProfile]:
    model = decoder.model
    with (
        _around(decoder, "propose", meter, "propose", "commit"),
        _around(model, "guess", meter, "draft", "propose"),
        _around(model, "verify", meter, "verify", "accept"),
        _around(model.lm, "forward", meter, "forward", "verify"),
        _around(model, "keep", meter, "commit", "commit"),
    ):
        decoding = decoder.decode(prompt, Exact(), Stop(frozenset(), model.context - len(prompt)))
        next(decoding)  # its tree was proposed before the first edge
        waits = getattr(meter, "waits", _Waits())
        for _ in range(steps):
            meter.sums.clear()
            waited, meter.since = waits.count, meter.now()
            step = next(decoding)
            meter.enter("commit")
            forward = meter.sums.pop("forward")
            meter.sums["verify"] += forward
            yield StepProfile({phase: meter.sums[phase] for phase in PHASES}, forward, step.nodes, waits.count - waited)


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
