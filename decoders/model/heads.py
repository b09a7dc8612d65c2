"""Medusa heads: each reads one hidden state of the base model, and guesses a token further on.

From that state the base model's own projection predicts the next token, the first head the second
token ahead, and the second head the third. Code counts heads from 0.

Each head is `layers` residual blocks, x + SiLU(W x + b), and its own projection onto the vocabulary
(Cai et al. 2024, arXiv 2401.10774, section 2.1.1). All heads are stacked, so that there is no
loop over heads.

Heads may also share the base model's own output projection. They then hold none themselves, and one
product serves all of them.

Published names of the tensors, for head i with n blocks:

    {i}.{j}.linear.weight  [hidden, hidden]      j < n
    {i}.{j}.linear.bias    [hidden]
    {i}.{n}.weight         [vocab, hidden]       absent where the projection is the base model's

The merged Medusa-2 layout has them beside the language model's, behind "medusa_head.".
"""

import re
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoders.model.named_tensors import check_finite
from decoders.model.projection import projected, rows_of

MERGED_PREFIX = "medusa_head."
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NAME = re.compile(r"(\d{1,18})\.(\d{1,18})\.(linear\.weight|linear\.bias|weight)")


class MedusaHeads(nn.Module):
    """Stacked Medusa heads: hidden states [rows, hidden] to logits [heads, rows, vocab]."""

    def __init__(
        self,
        heads: int,
        hidden: int,
        vocab: int,
        layers: int = 1,
        projection: nn.Linear | None = None,
    ) -> None:
        """projection: the base model's, which all heads end in. None: each has one of its own."""
        super().__init__()
        self.block_weight = nn.Parameter(torch.zeros(layers, heads, hidden, hidden))
        self.block_bias = nn.Parameter(torch.zeros(layers, heads, hidden))
        # [heads, vocab, hidden]. In narrowed heads [heads, n, hidden], or [n, hidden] where all
        # heads share one. None: heads end in the base model's own projection.
        self.out_weight: nn.Parameter | None = None
        if projection is None:
            self.out_weight = nn.Parameter(torch.zeros(heads, vocab, hidden))
        # In a tuple, so that torch does not register the base model's layer as part of the heads.
        self._base = (projection,)
        # Added to the logits. [vocab]: -inf for tokens that `restrict_to` leaves out. In narrowed
        # heads [n]: the same, or the bias of the base model's projection. None: nothing is added.
        self.register_buffer("offset", None, persistent=False)
        self.is_restricted = False  # Whether `restrict_to` has left tokens out.

    def __len__(self) -> int:
        return self.block_weight.shape[1]

    @property
    def shares_projection(self) -> bool:
        """Whether all heads end in the base model's projection."""
        return self.out_weight is None

    def forward(self, hidden_states: Tensor, num_heads: int | None = None) -> Tensor:
        """`num_heads`: how many heads, from the first on. None: all."""
        return self.project(self.blocks(hidden_states, num_heads))

    def blocks(self, hidden_states: Tensor, num_heads: int | None = None) -> Tensor:
        """What heads project [heads, rows, hidden], at hidden states [rows, hidden]."""
        weights, biases = self.block_weight[:, :num_heads], self.block_bias[:, :num_heads]
        x = hidden_states.expand(weights.shape[1], *hidden_states.shape)  # [heads, rows, hidden]
        for weight, bias in zip(weights, biases, strict=True):
            x = x + F.silu(torch.baddbmm(bias.unsqueeze(1), x, weight.mT))
        return x

    def project(self, x: Tensor) -> Tensor:
        """The logits [heads, rows, vocab] of what the blocks of the first heads made."""
        logits = self._projected(x)
        return logits if self.offset is None else logits + self.offset

    def _projected(self, x: Tensor) -> Tensor:
        if self.out_weight is None:
            return self._base_logits(x)
        if self.out_weight.ndim == 2:
            return F.linear(x, self.out_weight)
        out_weight = self.out_weight[: len(x)]
        if x.shape[1] == 1:
            # With the one row as a column, the CPU's batched product takes a third of the time.
            return torch.bmm(out_weight, x.mT).mT
        return x @ out_weight.mT

    def _base_logits(self, x: Tensor) -> Tensor:
        """The base model's projection of x [heads, rows, hidden]."""
        return projected(self._base[0], x)

    def narrowed(self, tokens: Tensor) -> "MedusaHeads":
        """The same heads with a projection onto `tokens` [n] alone. Logits come in that order."""
        layers, heads, hidden, _ = self.block_weight.shape
        narrow = MedusaHeads(heads, hidden, 0, layers)
        narrow.block_weight, narrow.block_bias = self.block_weight, self.block_bias
        narrow.out_weight = nn.Parameter(self._projection_onto(tokens), requires_grad=False)
        narrow.offset = self._offset_onto(tokens)
        return narrow

    def renarrow(self, narrow: "MedusaHeads", columns: slice, tokens: Tensor) -> None:
        """Make these columns of heads that were `narrowed` stand for other tokens [n]."""
        narrow.out_weight[..., columns, :] = self._projection_onto(tokens)
        if narrow.offset is not None:
            narrow.offset[columns] = self._offset_onto(tokens)

    def _projection_onto(self, tokens: Tensor) -> Tensor:
        """Weights onto `tokens` [n]: [heads, n, hidden]; if shared by all heads, [n, hidden]."""
        weight = self._base[0].weight if self.out_weight is None else self.out_weight
        return rows_of(weight, tokens)

    def _offset_onto(self, tokens: Tensor) -> Tensor | None:
        """The offset [n] of the logits of `tokens` [n], such as a shared bias. None: no offset."""
        (base,) = self._base
        offset = base.bias if base is not None else self.offset
        return None if offset is None else rows_of(offset, tokens)

    def restrict_to(self, tokens: Tensor) -> None:
        """From now on, guess only these tokens [n]. For heads with projections of their own."""
        vocab = self.out_weight.shape[-2]
        outside = self.block_bias.detach().new_full((vocab,), float("-inf"))
        self.offset = outside.index_fill(0, tokens.to(outside.device), 0.0)
        self.is_restricted = True

    @classmethod
    def from_published(
        cls,
        tensors: Mapping[str, Tensor],
        hidden: int,
        vocab: int,
        projection: nn.Linear | None = None,
    ) -> "MedusaHeads":
        """Heads from tensors under their published names, without prefix, in the tensors' dtype.

        The names give the numbers of heads and blocks. Where no tensor is a projection, all heads
        end in `projection`, the base model's. ValueError names the first tensor that is missing,
        unknown, not finite, or does not fit the base model's `hidden` and `vocab`.
        """
        matches = {name: _NAME.fullmatch(name) for name in tensors}
        unknown = sorted(name for name, match in matches.items() if match is None)
        if unknown:
            raise ValueError(
                f"{unknown[0][:60]!r} is not a tensor of Medusa heads (expected names like "
                "'0.0.linear.weight')"
            )
        if not matches:
            raise ValueError("there is no tensor in it")
        heads = 1 + max(int(match[1]) for match in matches.values() if match)
        last = max(int(match[2]) for match in matches.values() if match)
        has_projections = any(match[3] == "weight" for match in matches.values() if match)
        if not has_projections and projection is None:
            raise ValueError(f"tensor '0.{last + 1}.weight', a projection, is missing")
        layers = last if has_projections else last + 1
        if max(heads, layers) > len(tensors):
            raise ValueError(f"{len(tensors)} tensors cannot make {heads} heads of {layers} blocks")
        not_floating = sorted(
            name for name, tensor in tensors.items() if tensor.dtype not in DTYPES
        )
        if not_floating:
            name = not_floating[0]
            raise ValueError(
                f"tensor {name!r} is {tensors[name].dtype}; expected float32, float16, bfloat16 or "
                "float64"
            )
        # Before any memory is taken: tensors of one element may claim thousands of heads.
        expected = _shapes(heads, layers, hidden, vocab if has_projections else None)
        _check_shapes(tensors, expected, f"{heads} heads of {layers} blocks")
        check_finite(tensors)
        stacked = cls(heads, hidden, vocab, layers, None if has_projections else projection)
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
            if self.out_weight is not None:
                named[f"{i}.{layers}.weight"] = self.out_weight.data[i]
        return named


def _shapes(
    heads: int, layers: int, hidden: int, vocab: int | None
) -> Iterator[tuple[str, list[int]]]:
    """The published names of heads of these numbers, and the shapes of the tensors.

    vocab: rows of each head's own projection. None: the heads have none.
    """
    for i in range(heads):
        for j in range(layers):
            yield f"{i}.{j}.linear.weight", [hidden, hidden]
            yield f"{i}.{j}.linear.bias", [hidden]
        if vocab is not None:
            yield f"{i}.{layers}.weight", [vocab, hidden]


def _check_shapes(
    tensors: Mapping[str, Tensor], expected: Iterable[tuple[str, list[int]]], found: str
) -> None:
    """ValueError names the first tensor that is missing, has another shape, or is one too many.

    found: the numbers of heads and blocks in words. It stops at the first missing tensor, so that
    it never looks at more names than there are tensors.
    """
    known = set()
    for name, wanted in expected:
        if name not in tensors:
            raise ValueError(f"tensor {name!r} is missing ({found} were found)")
        if (given := list(tensors[name].shape)) != wanted:
            raise ValueError(f"tensor {name!r} is {given}; this base model needs {wanted}")
        known.add(name)
    if beyond := sorted(tensors.keys() - known):
        raise ValueError(f"tensor {beyond[0]!r} does not belong to {found}")
