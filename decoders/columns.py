"""Linear layers for the few rows of a decoding step on a CPU.

A step multiplies each weight [out, in] with 1 to 64 rows. The usual product, rows @ weight.T, is made for many rows: with MKL
on an AMD EPYC it uses one core for one row, and takes longer for 4 rows than for 8. weight @ rows.T is the same sum the
other way round; there it took 0.3 of the time for 4 rows, 0.5 for 8, and for one row, with an idle second one beside it, 0.45.
Where that is so differs between machines, so it is measured on the model's own weights when the model is made.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 1 << 15  # entries of a weight below which there is nothing to win


def column_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear computes, [..., out] from [..., in], as weight @ rows.T."""
    flat = rows.reshape(-1, rows.shape[-1])
    if len(flat) == 1:  # one column alone takes the slow way again
        flat = flat.expand(2, -1).contiguous()
    product = torch.mm(weight, flat.mT) if bias is None else torch.addmm(bias.unsqueeze(1), weight, flat.mT)
    return product.mT[: max(1, rows.numel() // rows.shape[-1])].contiguous().view(*rows.shape[:-1], -1)


class ColumnLinears:
    """Makes the plain linear layers of a model use `column_linear` for up to `most_rows` rows."""

    def __init__(self, module: nn.Module) -> None:
        self.layers = [
            layer
            for layer in module.modules()
            if type(layer) is nn.Linear and layer.weight.numel() >= SMALLEST and layer.weight.dtype == torch.float32
        ]
        self.most_rows = most_rows([layer.weight for layer in self.layers])
        self._use()

    def _use(self) -> None:
        for layer in self.layers if self.most_rows else ():
            layer.forward = lambda x, layer=layer: self._forward(layer, x)

    def _forward(self, layer: nn.Linear, x: Tensor) -> Tensor:
        few = x.numel() <= self.most_rows * layer.in_features
        return (column_linear if few else F.linear)(x, layer.weight, layer.bias)

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The model as it was loaded."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        try:
            yield
        finally:
            self._use()


@torch.inference_mode()
def most_rows(weights: list[Tensor], candidates: tuple[int, ...] = (1, 2, 4, 8, 16, 32), rounds: int = 5) -> int:
    """Up to how many rows `column_linear` is clearly the faster one here; 0 where it never is.

    As in a forward pass, each weight comes from memory: the others have pushed it out of the cache since it was last used.
    """
    enough = next((at for at in range(1, len(weights)) if sum(map(Tensor.numel, weights[:at])) > 1 << 26), len(weights))
    best = 0
    for count in candidates:
        seconds: dict[Callable, list[float]] = {F.linear: [], column_linear: []}
        for _ in range(1 + rounds):
            for product, samples in seconds.items():
                began = time.perf_counter()
                for weight in weights[:enough]:
                    product(torch.zeros(count, weight.shape[1]), weight)
                samples.append(time.perf_counter() - began)
        if statistics.median(seconds[column_linear][1:]) > 0.9 * statistics.median(seconds[F.linear][1:]):
            break
        best = count
    return best
