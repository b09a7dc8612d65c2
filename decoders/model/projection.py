"""The base model's output projection, used beside the model's own forward."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def projected(projection: nn.Linear, hidden_states: Tensor) -> Tensor:
    """The logits [..., vocab] of hidden states [..., hidden].

    It goes past the hook by which `Model` notes the hidden states of its own forward.
    """
    if torch.is_grad_enabled() and hidden_states.requires_grad:
        # An engine's product for few rows has no gradient.
        return F.linear(hidden_states, projection.weight, projection.bias)
    return projection.forward(hidden_states)
