"""A stand-in for CUDA graphs where there is no CUDA.

It runs the very operations again, on the very tensors and with the very numbers of when it
recorded. That is what a graph does.
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


class Recorder(TorchDispatchMode):
    """Records the operations that run while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.has_just_run = True  # Recording runs the operations as well; capturing does not.

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    @torch.inference_mode()
    def replay(self) -> None:
        if self.has_just_run:
            self.has_just_run = False
            return
        for function, args, kwargs, result in self.calls:
            again = function(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                is_dense = isinstance(old, torch.Tensor) and old.layout == torch.strided
                if is_dense and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(operations: Callable[[], T]) -> tuple[Recorder, T]:
    """What `Graphs._capture` returns, with a recorder for the graph."""
    recorder = Recorder()
    with recorder:
        result = operations()
    return recorder, result
