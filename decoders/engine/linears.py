"""Linear layers for the few rows of a decoding step.

Layers that read the same rows (the projections of an attention, the two gates of an MLP) become one product, as small products
do not reach the memory's bandwidth. Which layers do is seen, not known: a forward pass of the model is watched.

On a CPU the product is another one, too. A step multiplies each weight [out, in] with 1 to 128 rows. The usual one, rows @
weight.T with MKL, is made for many: on an AMD EPYC it uses one core for one row, and takes longer for 4 rows than for 8. Two
others compute the same sums:

    columns   weight @ rows.T, the other way round: the fastest for 1 to 4 rows
    packed    oneDNN's, from a copy of the weight in the order in which it is read: the fastest for more

Which product is used follows from the number of rows alone and never from a stopwatch: their roundings differ, and the same
command must give the same text. The price of `packed` is memory, a second copy of the model's linear layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 1 << 15  # entries of a weight below which there is nothing to win
MOST_PACKED = 1 << 28  # entries of all weights together, above which no second copy is made
MOST_COLUMNS = 4  # rows


def columns(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear computes, [..., out] from [..., in], as weight @ rows.T."""
    flat = rows.reshape(-1, rows.shape[-1])
    if len(flat) == 1:  # one column alone takes the slow way again
        flat = flat.expand(2, -1).contiguous()
    product = (
        torch.mm(weight, flat.mT)
        if bias is None
        else torch.addmm(bias.unsqueeze(1), weight, flat.mT)
    )
    return (
        product.mT[: max(1, rows.numel() // rows.shape[-1])].contiguous().view(*rows.shape[:-1], -1)
    )


def pack(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] for `packed`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, 16)


def packed(rows: Tensor, copy: Tensor, bias: Tensor | None = None) -> Tensor:
    """What F.linear computes, [..., out] from [..., in], from a weight's packed copy."""
    return torch.ops.mkldnn._linear_pointwise(rows, copy, bias, "none", [], "")


class Joined:
    """Linear layers that read the same rows, as one product.

    The first of them to be called computes it; the others find their part, as long as they are given the very same tensor.
    """

    def __init__(self, layers: list[nn.Linear], with_copy: bool) -> None:
        """with_copy: whether there is memory for `packed`."""
        self.sizes = [layer.out_features for layer in layers]
        self.weight, self.bias = layers[0].weight, layers[0].bias
        if len(layers) > 1:
            with (
                torch.inference_mode(False),
                torch.no_grad(),
            ):  # they stay the layers' weights, which may be trained
                self.weight = torch.cat([layer.weight for layer in layers])
                self.bias = (
                    None if self.bias is None else torch.cat([layer.bias for layer in layers])
                )
            for layer, part in zip(layers, self.weight.split(self.sizes), strict=True):
                layer.weight.data = part
        self.copy = pack(self.weight) if with_copy else None
        self._rows: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def part(self, at: int, rows: Tensor) -> Tensor:
        """What layer `at` makes of rows [..., in]."""
        if rows is not self._rows or at not in self._parts:
            self._parts = dict(enumerate(self._product(rows).split(self.sizes, -1)))
        found = self._parts.pop(
            at
        )  # once, so that a tensor that was changed in place is not taken for what it was
        self._rows = rows if self._parts else None
        return found

    def _product(self, rows: Tensor) -> Tensor:
        if rows.device.type == "cpu" and rows.numel() <= MOST_COLUMNS * rows.shape[-1]:
            return columns(rows, self.weight, self.bias)
        if self.copy is None:
            return F.linear(rows, self.weight, self.bias)
        return packed(rows, self.copy, self.bias)


class FewRowLinears:
    """Makes the larger plain linear layers of a model, on a CPU those in float32, use the products above."""

    def __init__(self, module: nn.Module, forward: Callable[[], object]) -> None:
        """`forward` runs the module once, on whatever input."""
        layers = [
            layer
            for layer in module.modules()
            if type(layer) is nn.Linear
            and layer.weight.numel() >= SMALLEST
            and (layer.weight.dtype == torch.float32 or layer.weight.device.type != "cpu")
        ]
        small = sum(layer.weight.numel() for layer in layers) <= MOST_PACKED
        on_cpu = all(layer.weight.device.type == "cpu" for layer in layers)
        can_pack = (
            on_cpu
            and torch.backends.mkldnn.is_available()
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )
        self.products: list[Joined] = []
        self._forwards: dict[nn.Linear, Callable[[Tensor], Tensor]] = {}
        for group in _reading_the_same(layers, forward):
            joined = Joined(group, with_copy=small and can_pack)
            self.products.append(joined)
            for at, layer in enumerate(group):
                self._forwards[layer] = partial(joined.part, at)
        self._use()

    def _use(self) -> None:
        for layer, forward in self._forwards.items():
            layer.forward = forward

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """The model as it was loaded."""
        for layer in self._forwards:
            layer.__dict__.pop("forward", None)
        try:
            yield
        finally:
            self._use()


def _reading_the_same(
    layers: list[nn.Linear], forward: Callable[[], object]
) -> list[list[nn.Linear]]:
    """The layers in groups that one after the other are given the same tensor; those never called are groups of one."""
    calls: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: calls.append((layer, inputs[0])))
        for layer in layers
    ]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[list[nn.Linear]] = []
    placed: set[nn.Linear] = set()
    before = None
    for layer, rows in calls:
        if layer in placed:  # weights that are used twice
            before = None
            continue
        if rows is before and (layer.bias is None) == (groups[-1][0].bias is None):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        placed.add(layer)
        before = rows
    return groups + [[layer] for layer in layers if layer not in placed]
