"""Medusa heads: head k reads one hidden row of the base model and guesses the token k + 1 places ahead.

Each head is `layers` residual blocks, x + SiLU(W x + b), and its own projection onto the vocabulary (Cai et al. 2024,
arXiv 2401.10774, section 2.1.1). All heads are stacked, so that one row costs a few batched products and no loop.

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
    """`heads` stacked Medusa heads; calling them maps hidden rows [rows, hidden] to logits [heads, rows, vocab]."""

    def __init__(self, heads: int, hidden: int, vocab: int, layers: int = 1) -> None:
        super().__init__()
        self.block_weight = nn.Parameter(torch.zeros(layers, heads, hidden, hidden))
        self.block_bias = nn.Parameter(torch.zeros(layers, heads, hidden))
        self.out_weight = nn.Parameter(torch.zeros(heads, vocab, hidden))

    def __len__(self) -> int:
        return self.out_weight.shape[0]

    def forward(self, rows: Tensor, first: int | None = None) -> Tensor:
        """Only the `first` heads, if that is given."""
        x = rows.expand(len(self.out_weight[:first]), *rows.shape)  # [heads, rows, hidden]
        for weight, bias in zip(
            self.block_weight[:, :first], self.block_bias[:, :first], strict=True
        ):
            x = x + F.silu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        if (
            rows.shape[0] == 1
        ):  # one row as a column: the CPU's batched product takes a third of the time
            return torch.bmm(self.out_weight[:first], x.mT).mT
        return x @ self.out_weight[:first].mT

    def narrowed(self, tokens: Tensor) -> "MedusaHeads":
        """The same heads with a projection onto `tokens` [n] alone, whose logits they give in that order."""
        layers, heads, hidden, _ = self.block_weight.shape
        found = MedusaHeads(heads, hidden, 0, layers)
        found.block_weight, found.block_bias = self.block_weight, self.block_bias
        found.out_weight = nn.Parameter(self.out_weight[:, tokens], requires_grad=False)
        return found

    @classmethod
    def from_published(
        cls, tensors: Mapping[str, Tensor], hidden: int, vocab: int
    ) -> "MedusaHeads":
        """Heads from tensors in the published names (without prefix); they share the tensors' dtype.

        The number of heads and blocks is what the tensors say. ValueError that names the first tensor which is missing,
        unknown or of another shape than the base model's `hidden` and `vocab` ask for.
        """
        found = {name: _NAME.fullmatch(name) for name in tensors}
        unknown = sorted(name for name, match in found.items() if match is None)
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not a tensor of Medusa heads (expected names like '0.0.linear.weight')"
            )
        if not found:
            raise ValueError("there is no tensor in it")
        heads = 1 + max(int(match[1]) for match in found.values() if match)
        layers = max(int(match[2]) for match in found.values() if match)
        if max(heads, layers) > len(tensors):
            raise ValueError(f"{len(tensors)} tensors cannot make {heads} heads of {layers} blocks")
        if whole := sorted(
            name for name, tensor in tensors.items() if not tensor.is_floating_point()
        ):
            raise ValueError(
                f"tensor {whole[0]!r} is {tensors[whole[0]].dtype}; expected floating point"
            )
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
