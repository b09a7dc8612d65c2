"""The base model's output projection, used beside the model's own forward."""

from collections.abc import Sequence

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


def rows_of(weight: Tensor, tokens: Tensor) -> Tensor:
    """The rows `tokens` [n] of a weight [..., vocab, hidden] or bias [vocab], on their device."""
    dim = max(0, weight.ndim - 2)
    return weight.detach().index_select(dim, tokens.to(weight.device)).to(tokens.device)


class Projections:
    """A projection onto the vocabulary, or onto some of its tokens; or one for each head."""

    is_restricted = False  # As in `MedusaHeads`.

    def __init__(self, linears: Sequence[nn.Linear]) -> None:
        """linears: one, or one for each head."""
        self.linears = linears

    def __call__(self, x: Tensor, head: int = 0) -> Tensor:
        """float32 logits [rows, tokens] of x [rows, hidden], by the projection of this head."""
        linear = self.linears[head] if len(self.linears) > 1 else self.linears[0]
        return projected(linear, x).float()

    def narrowed(self, tokens: Tensor) -> "Projections":
        """The same onto `tokens` [n] alone. Logits come in that order."""
        return Projections([_narrowed(each, tokens) for each in self.linears])

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
