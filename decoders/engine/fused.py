"""The small operations between a model's large products, compiled so that each group is one kernel.

A normalisation or the turning of queries and keys by their positions is some ten operations of a few microseconds each, which
on a GPU is a third of a step of one token. Compiling them takes seconds, compiling the whole model minutes.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

ROTATION = "apply_rotary_pos_emb"  # the name that the families of transformers have for it, each in its own module


class Fused:
    """Compiles the normalisations of a language model and its family's rotation, which other models of the family share."""

    def __init__(self, lm: nn.Module) -> None:
        self._norms = [module for module in lm.modules() if _is_norm(module)]
        for norm in self._norms:
            norm.compile()
        self._compiled = {norm: norm._compiled_call_impl for norm in self._norms}
        self._family = sys.modules[type(lm).__module__]
        self._plain = getattr(self._family, ROTATION, None)
        self._rotation = torch.compile(self._plain) if self._plain is not None else None
        self._use(True)

    def _use(self, fused: bool) -> None:
        for norm in self._norms:
            norm._compiled_call_impl = self._compiled[norm] if fused else None
        if self._plain is not None:
            setattr(self._family, ROTATION, self._rotation if fused else self._plain)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The model as it was loaded."""
        self._use(False)
        try:
            yield
        finally:
            self._use(True)


def _is_norm(module: nn.Module) -> bool:
    """A family's own normalisation; those of torch are one kernel already."""
    has_no_parts = next(module.children(), None) is None
    return (
        has_no_parts
        and "norm" in type(module).__name__.lower()
        and not type(module).__module__.startswith("torch.")
    )
