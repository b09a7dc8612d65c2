"""Profiles a step: its time, tensor operations and waits by phase. A run never does so.

    draft     the heads' forward on one hidden state
    propose   choosing the tree
    verify    the base model's forward over its nodes, the mask included. `forward` is the part of
              it inside the model, or the whole of a captured graph
    accept    choosing the path to keep
    learn     what the decoder does with the step for its next drafts
    commit    moving the path's keys and values, the transfer to the host, cutting at a stop

On CUDA the edges between phases are events in the device's own queue, and nothing waits for them.
Where the host is late, the device's idle time counts for the current phase. Other devices are
synchronised, and the host's clock is read. Here the operations after a forward are launched one by
one. A run may replay them as a graph, which takes less time.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import islice, pairwise

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.running.clock import now
from bench.store.step_profile import PHASES
from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.drafter import Drafter, Wrapper
from decoders.engine.engine import Engine
from decoders.model.model import Verified
from decoders.step import Step, Stop
from decoders.tree import Draft

# Functions that make the host wait for the device.
WAITS = (
    "tolist", "item", "__bool__", "__int__", "__float__", "__index__", "cpu", "numpy", "nonzero",
    "equal",
)  # fmt: skip


@dataclass(frozen=True)
class StepProfile:
    """One step: seconds by phase, or operations by phase where these were counted."""

    phases: dict[str, float]
    forward: float  # The base model's own part of verify, in the same unit.
    nodes: int
    waits: int = 0  # Times that the host waited for the device.

    @property
    def total(self) -> float:
        return sum(self.phases.values())

    @property
    def outside(self) -> float:
        """Everything that is not the base model's own forward."""
        return self.total - self.forward


def timed_steps(decoder: Decoder, prompt: Tensor, steps: int) -> list[StepProfile]:
    """Seconds by phase of `steps` steps after `prompt` [prompt], at temperature 0.

    An end-of-text token does not end them.
    """
    _set_up(decoder, prompt, steps)
    device = decoder.model.device
    meter = _Events(device) if device.type == "cuda" else _Clock(device)
    return list(_profiled(decoder, prompt, steps, meter))


def counted_steps(decoder: Decoder, prompt: Tensor, steps: int) -> list[StepProfile]:
    """As `timed_steps`, but in tensor operations, and with the waits counted.

    Views compute nothing and are not counted. The base model's own operations are not either.
    """
    _set_up(decoder, prompt, steps)
    meter = _Operations(decoder.model.device)
    with meter, meter.waits:
        return list(_profiled(decoder, prompt, steps, meter))


class _Meter:
    """Records where phases begin, and adds up the differences of `read` between them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.edges: list[tuple[str, object]] = []

    def read(self) -> object:
        raise NotImplementedError

    def between(self, before: object, after: object) -> float:
        return after - before

    def enter(self, phase: str) -> None:
        self.edges.append((phase, self.read()))

    def sums(self) -> Counter[str]:
        """Phase -> the sum since the last call."""
        sums: Counter[str] = Counter()
        for (phase, before), (_, after) in pairwise(self.edges):
            sums[phase] += self.between(before, after)
        self.edges = self.edges[-1:]
        return sums


class _Clock(_Meter):
    def read(self) -> float:
        return now(self.device)


class _Events(_Meter):
    def read(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
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
    def __init__(self, device: torch.device) -> None:
        TorchDispatchMode.__init__(self)
        _Meter.__init__(self, device)
        self.count = 0
        self.waits = _Waits()

    def read(self) -> float:
        return self.count

    def __torch_dispatch__(
        self, function: Callable, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        result = function(*args, **(kwargs or {}))
        if self.edges and self.edges[-1][0] == "forward":
            return result
        given = {_address(leaf) for leaf in _tensors((args, kwargs))}
        is_new = any(_address(leaf) not in given for leaf in _tensors(result))
        self.count += is_new or function._schema.is_mutable
        return result


def _tensors(values: object) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _address(tensor: Tensor) -> int:
    """A number that tensors share if, and only if, they share memory."""
    if tensor.is_mkldnn:  # A packed weight, which has no storage that Python could see.
        return id(tensor)
    return tensor.untyped_storage()._cdata


class _Metered(Wrapper):
    """Tells a meter where proposing and learning begin and end.

    Nothing is captured, as a graph would skip this.
    """

    captures = False

    def __init__(self, inner: Drafter, meter: _Meter) -> None:
        super().__init__(inner)
        self.meter = meter

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        self.meter.enter("propose")
        draft = self.inner.propose(root, hidden_state)
        self.meter.enter("commit")
        return draft

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self.meter.enter("learn")
        self.inner.observe(draft, verified, node)
        self.meter.enter("accept")


def _decoding(
    decoder: Decoder, prompt: Tensor, watched_by: Callable[[Drafter], Drafter] | None = None
) -> Iterator[Step]:
    stop = Stop(frozenset(), decoder.model.context - len(prompt))
    return decoder.decode(prompt, Exact(), stop, watched_by)


def _set_up(decoder: Decoder, prompt: Tensor, steps: int) -> None:
    """Run steps that set up static shapes and capture graphs before the profiled ones.

    They run twice: a graph is captured where a kind of step occurs for the second time.
    """
    for _ in range(2 if decoder.model.static_shapes else 0):
        for _ in islice(_decoding(decoder, prompt), 1 + steps):
            pass


def _profiled(decoder: Decoder, prompt: Tensor, steps: int, meter: _Meter) -> Iterator[StepProfile]:
    with _edges_in(decoder.model, meter):
        decoding = _decoding(decoder, prompt, lambda drafter: _Metered(drafter, meter))
        next(decoding)  # Its tree was proposed before the first edge.
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
            phases = {phase: sums[phase] for phase in PHASES}
            yield StepProfile(phases, forward, step.nodes, waits.count - waited)


@contextmanager
def _edges_in(model: Engine, meter: _Meter) -> Iterator[None]:
    """While this lasts, the model tells a meter where its phases begin."""
    edges = (  # Owner, method, the phase during the call, the phase after it.
        (model, "draft_logits", "draft", "propose"),
        (model, "verify", "verify", "accept"),
        (model.lm, "forward", "forward", "verify"),
        (model, "static_forward", "forward", "verify"),
        (model, "keep", "commit", "commit"),
    )
    with ExitStack() as stack:
        for owner, method, during, after in edges:
            watched = _with_edges(getattr(owner, method), meter, during, after)
            stack.enter_context(model.changes.replaced(owner, method, watched, "profiling"))
        yield


def _with_edges(method: Callable, meter: _Meter, during: str, after: str) -> Callable:
    @wraps(method)
    def call(*args: object, **kwargs: object) -> object:
        meter.enter(during)
        result = method(*args, **kwargs)
        meter.enter(after)
        return result

    return call
