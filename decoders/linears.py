"""Linear layers for the few rows of a decoding step on a CPU.

A step multiplies each weight [out, in] with 1 to 128 rows. The usual product, rows @ weight.T with MKL, is made for many:
on an AMD EPYC it uses one core for one row, and takes longer for 4 rows than for 8. Two others compute the same sums:

    columns   weight @ rows.T, the other way round: a whole step of 1 row took 0.85 of the time with it
    packed    oneDNN's, from a copy of the weight in the order in which it is read: 0.4 of the usual product's time for
              4 rows, 0.65 for 8 and 16, 0.75 for 64 (all layers of a model of 5.3 M weights, 2 threads, medians)

Which one is used follows from the number of rows alone and never from a stopwatch: their roundings differ, and the same
command must give the same text. The price of `packed` is memory, a second copy of the model's linear layers.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SMALLEST = 1 << 15  # entries of a weight below which there is nothing to win
MOST_PACKED = 1 << 28  # entries of all weights together, above which no second copy is made
MOST_COLUMNS = 2  # rows


def columns(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear computes, [..., out] from [..., in], as weight @ rows.T."""
    flat = rows.reshape(-1, rows.shape[-1])
    if len(flat) == 1:  # one column alone takes the slow way again
        flat = flat.expand(2, -1).contiguous()
    product = torch.mm(weight, flat.mT) if bias is None else torch.addmm(bias.unsqueeze(1), weight, flat.mT)
    return product.mT[: max(1, rows.numel() // rows.shape[-1])].contiguous().view(*rows.shape[:-1], -1)


def pack(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] for `packed`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, 16)


def packed(rows: Tensor, copy: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear computes, [..., out] from [..., in], from a weight's packed copy."""
    return torch.ops.mkldnn._linear_pointwise(rows, copy, bias, "none", [], "")


class FewRowLinears:
    """Makes the larger plain linear layers of a float32 model on a CPU use the products above."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [
            layer
            for layer in module.modules()
            if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST and layer.weight.dtype == torch.float32
        ]
        small = sum(layer.weight.numel() for layer in self.layers) <= MOST_PACKED
        can_pack = small and torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        self.copies = [pack(layer.weight) if can_pack else None for layer in self.layers]
        self._use()

    def _use(self) -> None:
        for layer, copy in zip(self.layers, self.copies, strict=True):
            layer.forward = lambda rows, layer=layer, copy=copy: self._forward(layer, copy, rows)

    def _forward(self, layer: nn.Linear, copy: Tensor | None, rows: Tensor) -> Tensor:
        if rows.numel() <= MOST_COLUMNS * layer.in_features:
            return columns(rows, layer.weight, layer.bias)
        return nn.Linear.forward(layer, rows) if copy is None else packed(rows, copy, layer.bias)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The model as it was loaded."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        try:
            yield
        finally:
            self._use()
