"""The base model's output projection, used beside the model's own forward."""

from collections.abc import Sequence
from math import isfinite

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def projected(projection: nn.Linear, hidden_states: Tensor) -> Tensor:
    """The logits [..., vocab] of hidden states [..., hidden].

    `forward` is called directly, so that the hook in which `Model` stores hidden states is not run.
    """
    if torch.is_grad_enabled() and hidden_states.requires_grad:
        # An engine's product for few rows has no gradient.
        return F.linear(hidden_states, projection.weight, projection.bias)
    # A model may be spread over several devices.
    on_its_device = hidden_states.to(projection.weight.device)
    return projection.forward(on_its_device).to(hidden_states.device)


def scale_between(projected: Tensor, logits: Tensor) -> float:
    """The factor from the output projection's logits to the model's own. Both: [rows, vocab].

    Some families scale logits (Cohere, Granite). Others cap them (Gemma 2); the factor is then an
    approximation. A factor within 1 % of 1 counts as 1. So does one that cannot be computed.
    """
    if projected.shape != logits.shape:
        return 1.0
    # On the CPU: Apple's GPUs have no float64, and a spread model has logits on another device.
    before, after = (each.detach().cpu().double().flatten() for each in (projected, logits))
    factor = float(before @ after / (before @ before))
    return factor if isfinite(factor) and factor > 0 and abs(factor - 1) > 0.01 else 1.0


def rows_of(weight: Tensor, tokens: Tensor) -> Tensor:
    """The rows `tokens` [n] of a weight [..., vocab, hidden] or bias [vocab], on their device."""
    dim = max(0, weight.ndim - 2)
    return weight.detach().index_select(dim, tokens.to(weight.device)).to(tokens.device)


class Projections:
    """A projection onto the vocabulary, or onto some of its tokens; or one for each head."""

    is_restricted = False  # As in `MedusaHeads`.

    def __init__(self, linears: Sequence[nn.Linear], scale: float = 1.0) -> None:
        """linears: one, or one for each head. scale: what logits are multiplied by."""
        self.linears = linears
        self.scale = scale

    def __call__(self, x: Tensor, head: int = 0) -> Tensor:
        """float32 logits [..., tokens] of x [..., hidden], by the projection of this head."""
        linear = self.linears[head] if len(self.linears) > 1 else self.linears[0]
        logits = projected(linear, x).float()
        return logits if self.scale == 1 else logits * self.scale

    def narrowed(self, tokens: Tensor) -> "Projections":
        """The same onto `tokens` [n] alone. Logits come in that order."""
        return Projections([_narrowed(each, tokens) for each in self.linears], self.scale)

    def renarrow(self, narrow: "Projections", columns: slice, tokens: Tensor) -> None:
        """Make these columns of projections that were `narrowed` stand for other tokens [n]."""
        for whole, part in zip(self.linears, narrow.linears, strict=True):
            part.weight[columns] = rows_of(whole.weight, tokens)
            if part.bias is not None:
                part.bias[columns] = rows_of(whole.bias, tokens)


def _narrowed(linear: nn.Linear, tokens: Tensor) -> nn.Linear:
    with torch.device("meta"):
        narrow = nn.Linear(linear.in_features, len(tokens), bias=linear.bias is not None)
    narrow.weight = nn.Parameter(rows_of(linear.weight, tokens), requires_grad=False)
    if linear.bias is not None:
        narrow.bias = nn.Parameter(rows_of(linear.bias, tokens), requires_grad=False)
    return narrow
