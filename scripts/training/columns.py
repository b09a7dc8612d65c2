"""Losses over the base model's own output projection, which stays as it is.

Most of the work in training small heads is this projection: a row of logits has as many numbers as
the vocabulary has tokens. Two things make it cheaper.

Few rows at a time. Where the projection is frozen, the gradient of a row's loss needs no other row.
It is taken in the forward pass, for a few rows at a time, whose logits fit into the processor's
caches.

Few columns. A batch looks at the frequent tokens, at those of its own answers, and at a random draw
of the others. Each drawn token stands for several (sampled softmax; Jean et al. 2015, arXiv
1412.2007).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.batches import NO_TARGET
from training.corpus import Example

CPU_LOGITS, GPU_LOGITS = 1 << 22, 1 << 27  # Logits that exist at once.
DRAWN = 4  # One column in DRAWN is drawn at random for each batch. The others are frequent tokens.


@dataclass(frozen=True, eq=False)
class Columns:
    """Columns of the output projection, each of which stands for one token or for several."""

    weight: Tensor  # [columns, hidden]
    bias: Tensor  # [columns] added to logits: the projection's own, and log(tokens stood for).
    column: Tensor  # [vocab] the column of each token. len(weight): the token has none.

    def of_tokens(self, x: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy of rows x [rows, hidden] with tokens [rows], which have columns.

        Rows without a target (NO_TARGET) are left out. 0 where there is no other.
        """
        has_target = target != NO_TARGET
        x, column = x[has_target], self.column[target[has_target]]

        def loss(x: Tensor, rows: slice) -> Tensor:
            return F.cross_entropy(self._logits(x), column[rows], reduction="sum")

        return self._mean(x, loss)

    def of_distributions(self, x: Tensor, truth: Tensor, scale: float = 1.0) -> Tensor:
        """The mean cross-entropy of rows x [rows, hidden] with the distributions of `truth`.

        truth: [rows, hidden], the hidden states of these distributions. scale: what the products
        are multiplied by in both.
        """

        def loss(x: Tensor, rows: slice) -> Tensor:
            with torch.no_grad():
                wanted = self._logits(truth[rows], scale).softmax(-1)
            return -(wanted * self._logits(x, scale).log_softmax(-1)).sum()

        return self._mean(x, loss)

    def _mean(self, x: Tensor, loss: Callable[[Tensor, slice], Tensor]) -> Tensor:
        at_once = CPU_LOGITS if x.device.type == "cpu" else GPU_LOGITS
        rows = max(1, at_once // len(self.weight))
        return _SumOverRows.apply(x, loss, rows) / max(1, len(x))

    def _logits(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """float32 logits [rows, columns] of x [rows, hidden]. scale: of the products."""
        return F.linear((scale * x).to(self.weight.dtype), self.weight).float() + self.bias


def of_logits(logits: Tensor, target: Tensor) -> Tensor:
    """The mean cross-entropy of logits [rows, vocab] with tokens [rows], as `Columns.of_tokens`."""
    total = F.cross_entropy(logits.float(), target, ignore_index=NO_TARGET, reduction="sum")
    return total / (target != NO_TARGET).sum().clamp(min=1)


class _SumOverRows(torch.autograd.Function):
    """The sum of a loss over rows, of which only a few are worked on at a time."""

    @staticmethod
    def forward(ctx, x: Tensor, loss: Callable[[Tensor, slice], Tensor], at_once: int) -> Tensor:
        """x: [rows, hidden]. loss: of some rows of x and their slice, summed over these rows.

        at_once: how many rows.
        """
        gradient = torch.empty_like(x)
        total = torch.zeros((), device=x.device)
        for start in range(0, len(x), at_once):
            rows = slice(start, start + at_once)
            with torch.enable_grad():
                part = x[rows].detach().requires_grad_()
                of_part = loss(part, rows)
                (gradient[rows],) = torch.autograd.grad(of_part, part)
            total += of_part.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx, grad_output: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad_output * gradient, None, None


class ColumnChoice:
    """Chooses the columns that a batch's losses look at: all, or a sample."""

    def __init__(
        self,
        projection: nn.Linear,
        examples: Sequence[Example],
        sampled: int | None,
        seed: int,
        dtype: torch.dtype,
    ) -> None:
        """examples: their answers say which tokens are frequent. sampled: columns. None: all.

        dtype: of the products.
        """
        self.projection = projection
        self.seed = seed
        self.dtype = dtype
        vocab, device = len(projection.weight), projection.weight.device
        self._all: Columns | None = None
        if sampled is None or sampled >= vocab:
            self._all = self._columns(torch.arange(vocab, device=device), always=vocab)
            return
        counts: Counter[int] = Counter()
        for ids, start in examples:
            counts.update(ids[start:])
        by_count = sorted(range(vocab), key=lambda token: (-counts[token], token))
        always = sampled - sampled // DRAWN
        self._always = torch.tensor(by_count[:always], device=device)
        self._others = torch.tensor(by_count[always:])  # On the CPU, where they are drawn.
        self._drawn = sampled - always

    def of_batch(self, answers: Tensor, step: int) -> Columns:
        """The columns for one batch, whose answers have the tokens [...]. `step` decides the draw.

        All tokens of the answers have columns.
        """
        if self._all is not None:
            return self._all
        is_here = torch.isin(self._others, answers.cpu())
        here, others = self._others[is_here], self._others[~is_here]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = others[torch.randperm(len(others), generator=generator)[: self._drawn]]
        token = torch.cat((self._always, *(each.to(self._always.device) for each in (here, drawn))))
        return self._columns(token, len(token) - len(drawn), stand_for=len(others))

    def _columns(self, token: Tensor, always: int, stand_for: int = 0) -> Columns:
        """Columns of tokens [n]. Those after the first `always` stand for `stand_for` together."""
        projection = self.projection
        weight = projection.weight.detach()[token].to(self.dtype)
        bias = torch.zeros(len(token), device=weight.device)
        if projection.bias is not None:
            bias += projection.bias.detach()[token]
        if drawn := len(token) - always:
            bias[always:] += log(stand_for / drawn)
        column = torch.full((len(projection.weight),), len(token), device=weight.device)
        column[token] = torch.arange(len(token), device=weight.device)
        return Columns(weight, bias, column)
