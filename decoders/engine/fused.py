"""The small operations between a model's large products, compiled so that each group is one kernel.

A normalisation, or the rotation of queries and keys by their positions, is about ten operations of
a few microseconds each. On a GPU they are a third of a step of one token. Compiling them takes
seconds; compiling the whole model would take minutes.
"""

import sys

import torch
from torch import nn

from decoders.engine.changes import Changes

# The name of the rotation in transformers. Every model family has its own, in its own module.
ROTATION = "apply_rotary_pos_emb"


def fuse(lm: nn.Module, changes: Changes) -> None:
    """Compile the normalisations of a model, and its family's rotation.

    Other models of the family share the rotation.
    """
    for module in lm.modules():
        if _is_norm(module):
            compiled = torch.compile(module._call_impl)
            changes.replace(module, "_compiled_call_impl", compiled, "compiled normalisation")
    family = sys.modules[type(lm).__module__]
    rotation = getattr(family, ROTATION, None)
    if rotation is not None:
        changes.replace(family, ROTATION, torch.compile(rotation), "compiled rotation")


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a model family's normalisation. Those of torch are one kernel already."""
    is_leaf = next(module.children(), None) is None
    is_torchs = type(module).__module__.startswith("torch.")
    return is_leaf and "norm" in type(module).__name__.lower() and not is_torchs
