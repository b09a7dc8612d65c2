"""Runs of tensor operations that always use the same addresses, captured as CUDA graphs.

With a graph the host need not launch operations one by one; a forward pass has about a thousand.
The first run of a key is not captured, so that libraries can do what they do on a first call. The
second run is captured and replayed. So nothing runs for the capture alone, and a key that is used
only once is never captured. Where the device cannot capture, all operations run as they are.
"""

import warnings
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import TypeVar

import torch

T = TypeVar("T")


class Graphs:
    """Captured runs by key. They share memory: a run's result is valid until the next run."""

    def __init__(self, device: torch.device, captures: bool = True) -> None:
        """`captures`: False where the model's operations cannot be captured.

        They are on several devices, or the host looks at their results.
        """
        self.device = device
        self.captures = captures and device.type == "cuda"
        self._met: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}
        self._pool: tuple[int, int] | None = None  # Memory that the graphs share.
        self._stream: torch.cuda.Stream | None = None  # Of captures alone.

    def __len__(self) -> int:
        return len(self._captured)

    def clear(self) -> None:
        """Forget all graphs. Needed when tensors that they read have moved."""
        self._met.clear()
        self._captured.clear()
        self._pool = None

    def run(self, key: Hashable, operations: Callable[[], T]) -> T:
        """Return what `operations` returns.

        Under one key they must always be the same operations on the same addresses.
        """
        if not self.captures:
            return operations()
        if key in self._captured:
            graph, result = self._captured[key]
        elif key not in self._met:
            self._met.add(key)
            return operations()
        else:
            try:
                graph, result = self._captured[key] = self._capture(operations)
            except RuntimeError as error:
                self.captures = False
                self.clear()
                what = " ".join(str(error).split())[:200]
                warnings.warn(f"no CUDA graph: {what}; steps run without", stacklevel=2)
                return operations()
        graph.replay()
        return result

    def _capture(self, operations: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
        """The graph of the operations, and their result. RuntimeError where there can be none."""
        with torch.cuda.device(self.device):  # Not always the current one: --device cuda:1.
            before = torch.cuda.current_stream()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    result = operations()
            except BaseException:
                self._end_capture(before)
                raise
        return graph, result

    def _end_capture(self, before: torch.cuda.Stream) -> None:
        """Undo what torch leaves behind where a capture failed: its stream, and its memory pool.

        Without this, torch.cuda.empty_cache() fails afterwards. before: the stream to return to.
        """
        torch.cuda.set_stream(before)
        # Later versions of torch leave the pool themselves, and raise here.
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
