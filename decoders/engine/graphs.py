"""Runs of tensor operations that always read and write the same addresses, captured as CUDA graphs.

A graph spares the host the launching of its operations, some thousand for a forward pass, one by one. What is run under a key
for the first time runs as it is, which also sets up whatever libraries set up on a first call; the second time it is captured.
So nothing runs for the capture's sake alone, and what comes only once costs none. Where nothing can be captured, all of it
runs as it is.
"""

import warnings
from collections.abc import Callable, Hashable
from typing import TypeVar

import torch

T = TypeVar("T")


class Graphs:
    """Captured runs by key. They share memory, so what one returns is good until the next is run."""

    def __init__(self, device: torch.device, captures: bool = True) -> None:
        self.captures = captures and device.type == "cuda"
        self._met: set[Hashable] = set()
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, object]] = {}

    def __len__(self) -> int:
        return len(self._captured)

    def clear(self) -> None:
        """Forget all: the addresses that they were captured with are no longer good."""
        self._met.clear()
        self._captured.clear()

    def run(self, key: Hashable, operations: Callable[[], T]) -> T:
        """What `operations` returns. Under the same key it must be the same operations, on the same addresses."""
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
