"""Medusa heads: head k reads one hidden state of the base model and guesses the token k + 1 ahead.

Each head is `layers` residual blocks, x + SiLU(W x + b), and its own projection onto the vocabulary
(Cai et al. 2024, arXiv 2401.10774, section 2.1.1). All heads are stacked, so that one hidden state
costs a few batched products and no loop.

Published names of the tensors, for head i with n blocks:

    {i}.{j}.linear.weight  [hidden, hidden]      j < n
    {i}.{j}.linear.bias    [hidden]
    {i}.{n}.weight         [vocab, hidden]

The merged Medusa-2 layout has them beside the language model's, behind "medusa_head.".
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MERGED_PREFIX = "medusa_head."
_NAME = re.compile(r"(\d+)\.(\d+)\.(linear\.weight|linear\.bias|weight)")


class MedusaHeads(nn.Module):
    """Stacked Medusa heads: hidden states [rows, hidden] to logits [heads, rows, vocab]."""

    def __init__(self, heads: int, hidden: int, vocab: int, layers: int = 1) -> None:
        super().__init__()
        self.block_weight = nn.Parameter(torch.zeros(layers, heads, hidden, hidden))
        self.block_bias = nn.Parameter(torch.zeros(layers, heads, hidden))
        self.out_weight = nn.Parameter(torch.zeros(heads, vocab, hidden))

    def __len__(self) -> int:
        return self.out_weight.shape[0]

    def forward(self, hidden_states: Tensor, num_heads: int | None = None) -> Tensor:
        """`num_heads`: only the first so many heads. None: all."""
        out_weight = self.out_weight[:num_heads]
        x = hidden_states.expand(len(out_weight), *hidden_states.shape)  # [heads, rows, hidden]
        blocks = self.block_weight[:, :num_heads], self.block_bias[:, :num_heads]
        for weight, bias in zip(*blocks, strict=True):
            x = x + F.silu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        if hidden_states.shape[0] == 1:
            # One row as a column: the CPU's batched product takes a third of the time.
            return torch.bmm(out_weight, x.mT).mT
        return x @ out_weight.mT

    def narrowed(self, tokens: Tensor) -> "MedusaHeads":
        """The same heads with a projection onto `tokens` [n] alone. Logits come in that order."""
        layers, heads, hidden, _ = self.block_weight.shape
        narrow = MedusaHeads(heads, hidden, 0, layers)
        narrow.block_weight, narrow.block_bias = self.block_weight, self.block_bias
        narrow.out_weight = nn.Parameter(self.out_weight[:, tokens], requires_grad=False)
        return narrow

    @classmethod
    def from_published(
        cls, tensors: Mapping[str, Tensor], hidden: int, vocab: int
    ) -> "MedusaHeads":
        """Heads from tensors under their published names, without prefix, in the tensors' dtype.

        The number of heads and blocks is what the tensors say. ValueError names the first tensor
        that is missing, unknown, or of another shape than the base model's `hidden` and `vocab` ask
        for.
        """
        matches = {name: _NAME.fullmatch(name) for name in tensors}
        unknown = sorted(name for name, match in matches.items() if match is None)
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not a tensor of Medusa heads (expected names like "
                "'0.0.linear.weight')"
            )
        if not matches:
            raise ValueError("there is no tensor in it")
        heads = 1 + max(int(match[1]) for match in matches.values() if match)
        layers = max(int(match[2]) for match in matches.values() if match)
        if max(heads, layers) > len(tensors):
            raise ValueError(f"{len(tensors)} tensors cannot make {heads} heads of {layers} blocks")
        not_floating = sorted(
            name for name, tensor in tensors.items() if not tensor.is_floating_point()
        )
        if not_floating:
            name = not_floating[0]
            raise ValueError(f"tensor {name!r} is {tensors[name].dtype}; expected floating point")
        stacked = cls(heads, hidden, vocab, layers)
        expected = stacked.published()
        for name in sorted(expected.keys() | tensors.keys()):
            if name not in tensors:
                raise ValueError(
                    f"tensor {name!r} is missing ({heads} heads of {layers} blocks were found)"
                )
            if name not in expected:
                raise ValueError(
                    f"tensor {name!r} does not belong to {heads} heads of {layers} blocks"
                )
            if tensors[name].shape != expected[name].shape:
                given, wanted = list(tensors[name].shape), list(expected[name].shape)
                raise ValueError(f"tensor {name!r} is {given}; this base model needs {wanted}")
        stacked.to(next(iter(tensors.values())).dtype)
        for name, view in stacked.published().items():
            view.copy_(tensors[name])
        return stacked

    @torch.no_grad()
    def published(self) -> dict[str, Tensor]:
        """Views of the stacked tensors under their published names, without prefix."""
        layers = len(self.block_weight)
        named = {}
        for i in range(len(self)):
            for j in range(layers):
                named[f"{i}.{j}.linear.weight"] = self.block_weight.data[j, i]
                named[f"{i}.{j}.linear.bias"] = self.block_bias.data[j, i]
            named[f"{i}.{layers}.weight"] = self.out_weight.data[i]
        return named
