"""Runs of tensor operations that always use the same addresses, captured as CUDA graphs.

With a graph the host need not launch operations one by one; a forward pass has about a thousand.
The first run of a key is not captured, so that libraries can do what they do on a first call. The
second run is captured and replayed. So nothing runs for the capture alone, and a key that is used
only once is never captured. Where the device cannot capture, all operations run as they are.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

T = TypeVar("T")


class Graphs:
    """Captured runs by key. They share memory: a run's result is valid until the next run."""

    def __init__(self, device: torch.device, captures: bool = True) -> None:
        """`captures`: False where the model is spread over several devices."""
        self.captures = captures and device.type == "cuda"
        self._met: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def clear(self) -> None:
        """Forget all graphs. Needed when tensors that they read have moved."""
        self._met.clear()
        self._captured.clear()

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
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other, _ in self._captured.values()), None)
        with torch.cuda.graph(graph, pool=pool):
            result = operations()
        return graph, result
