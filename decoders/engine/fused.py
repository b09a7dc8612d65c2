"""The small operations between a model's large products, compiled so that each group is one kernel.

A normalisation, or the rotation of queries and keys by their positions, is about ten operations of
a few microseconds each. On a GPU they are a third of a step of one token. The gate of an MLP is two
operations. Compiling them takes seconds; compiling the whole model would take minutes.
"""

import sys
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from decoders.engine.changes import Changes

# The name of the rotation in transformers. Every model family has its own, in its own module.
ROTATION = "apply_rotary_pos_emb"
# The names of the linear layers of a gated MLP in transformers. Its activation is `act_fn`.
GATED = ("gate_proj", "up_proj", "down_proj")
TOLERANCE = 2e-2  # Absolute and relative, of half precision.


def fuse(lm: nn.Module, changes: Changes) -> None:
    """Compile the normalisations of a model, the gates of its MLPs, and its family's rotation.

    Other models of the family share the rotation.
    """
    gate = torch.compile(_gated)
    for module in lm.modules():
        if _is_norm(module):
            compiled = torch.compile(module._call_impl)
            changes.replace(module, "_compiled_call_impl", compiled, "compiled normalisation")
        elif _is_gated_mlp(module):
            changes.replace(module, "forward", partial(_mlp, module, gate), "compiled gate")
    family = sys.modules[type(lm).__module__]
    rotation = getattr(family, ROTATION, None)
    if rotation is not None:
        changes.replace(family, ROTATION, torch.compile(rotation), "compiled rotation")


def _is_norm(module: nn.Module) -> bool:
    """Whether a module is a model family's normalisation. Those of torch are one kernel already."""
    is_leaf = next(module.children(), None) is None
    is_torchs = type(module).__module__.startswith("torch.")
    return is_leaf and "norm" in type(module).__name__.lower() and not is_torchs


def _gated(activation: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    return activation(gate) * up


def _mlp(module: nn.Module, gate: Callable[..., Tensor], rows: Tensor) -> Tensor:
    """The forward of a gated MLP, for rows [..., hidden]. gate: `_gated`, or it compiled."""
    return module.down_proj(gate(module.act_fn, module.gate_proj(rows), module.up_proj(rows)))


@torch.inference_mode()
def _is_gated_mlp(module: nn.Module) -> bool:
    """Whether a module computes what `_mlp` does: by its layers' names, and tried on random rows.

    False for layers of other kinds, such as quantised ones.
    """
    layers = [getattr(module, name, None) for name in GATED]
    is_plain = all(type(layer) is nn.Linear and not layer.weight.is_meta for layer in layers)
    # A forward of the module's own may be accelerate's, which moves its inputs.
    if not is_plain or not hasattr(module, "act_fn") or "forward" in vars(module):
        return False
    weight = layers[0].weight
    generator = torch.Generator(weight.device).manual_seed(0)
    rows = weight.new_empty(1, 2, weight.shape[1]).normal_(generator=generator)
    found = _mlp(module, _gated, rows)
    return torch.allclose(module(rows), found, rtol=TOLERANCE, atol=TOLERANCE)
