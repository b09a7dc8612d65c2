"""Runs of tensor operations that always use the same addresses, captured as CUDA graphs.

A graph spares the host the launching of its operations one by one; a forward pass has some
thousand. The first time that a key is met, its operations run as they are, which also sets up what
libraries set up on a first call. The second time they are captured, then replayed. So nothing runs
for the capture alone, and what comes only once is never captured. Where nothing can be captured,
all operations run as they are.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

T = TypeVar("T")


class Graphs:
    """Captured runs by key. They share memory: what a run returns is good until the next one."""

    def __init__(self, device: torch.device, captures: bool = True) -> None:
        """`captures`: False where the model is spread over several devices."""
        self.captures = captures and device.type == "cuda"
        self._met: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def clear(self) -> None:
        """Forget all graphs, as the addresses in them are no longer good."""
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
