"""Linear layers for the few rows of a decoding step.

Layers that read the same rows (the projections of an attention, the two gates of an MLP) become one
product, because small products do not reach the memory's bandwidth. One watched forward pass shows
which layers these are.

On a CPU the product itself is replaced, too. A step multiplies each weight [out, in] with 1 to 128
rows. The usual product, rows @ weight.T with MKL, is made for many rows: on an AMD EPYC it uses one
core for one row, and takes longer for 4 rows than for 8. Two other products are faster:

    packed    oneDNN's, from a copy of the weight in reading order
    columns   weight @ rows.T: as fast for 1 to 4 rows of up to some 400 entries, and without a copy

The numbers of rows and entries decide which product is used. Timing them could change the choice,
and with it the text, as the products round differently. `packed` costs memory for a second copy of
the linear layers. In bfloat16 only `packed` is faster than the usual product.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from decoders.engine.changes import Changes

SMALLEST = 1 << 15  # Entries of a weight. A smaller layer gains nothing.
MOST_PACKED = 1 << 28  # Entries of all weights together. A larger model gets no packed copy.
# Sizes up to which `columns` is used.
MOST_COLUMNS = 4  # Rows.
NARROW = 384  # Entries of a row, where there is a packed copy as well.


def columns(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, [..., out] from [..., in], computed as weight @ rows.T."""
    flat = rows.reshape(-1, rows.shape[-1])
    if len(flat) == 1:  # A product with one column takes the slow way again.
        flat = flat.expand(2, -1).contiguous()
    if bias is None:
        product = torch.mm(weight, flat.mT)
    else:
        product = torch.addmm(bias.unsqueeze(1), weight, flat.mT)
    count = max(1, rows.numel() // rows.shape[-1])
    return product.mT[:count].contiguous().view(*rows.shape[:-1], len(weight))


def pack(weight: Tensor) -> Tensor:
    """A copy of a weight [out, in] for `packed`."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, 16)


def packed(rows: Tensor, copy: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear, [..., out] from [..., in], computed from a weight's packed copy."""
    return torch.ops.mkldnn._linear_pointwise(rows, copy, bias, "none", [], "")


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware, and oneDNN uses it."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product can be used here for weights of this dtype."""
    has_product = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if dtype == torch.bfloat16:
        return has_product and multiplies_bfloat16()
    return has_product and dtype == torch.float32 and torch.backends.mkldnn.is_available()


class JoinedLinears:
    """Linear layers that read the same rows, as one product.

    The layer that is called first computes the product. The others take their part of the result,
    as long as they are given the very same tensor.
    """

    def __init__(self, layers: list[nn.Linear], with_copy: bool) -> None:
        """`with_copy`: whether there is memory for `packed`."""
        self.sizes = [layer.out_features for layer in layers]
        self.weight, self.bias = layers[0].weight, layers[0].bias
        if len(layers) > 1:
            # Outside inference mode: the layers' own weights become views of this one, and may be
            # trained.
            with torch.inference_mode(False), torch.no_grad():
                self.weight = torch.cat([layer.weight for layer in layers])
                if self.bias is not None:
                    self.bias = torch.cat([layer.bias for layer in layers])
            for layer, part in zip(layers, self.weight.split(self.sizes), strict=True):
                layer.weight.data = part
        self.copy = pack(self.weight) if with_copy else None
        self._rows: Tensor | None = None
        self._parts: dict[int, Tensor] = {}

    def part(self, index: int, rows: Tensor) -> Tensor:
        """The output [..., out] of layer `index` for rows [..., in]."""
        if rows is not self._rows or index not in self._parts:
            self._parts = dict(enumerate(self._product(rows).split(self.sizes, -1)))
        # Each part is handed out once: a tensor that was changed in place needs a new product.
        part = self._parts.pop(index)
        self._rows = rows if self._parts else None
        return part

    def _product(self, rows: Tensor) -> Tensor:
        is_few = rows.numel() <= MOST_COLUMNS * rows.shape[-1]
        has_columns = rows.device.type == "cpu" and rows.dtype == torch.float32 and is_few
        if has_columns and (self.copy is None or rows.shape[-1] <= NARROW):
            return columns(rows, self.weight, self.bias)
        if self.copy is None:
            return F.linear(rows, self.weight, self.bias)
        return packed(rows, self.copy, self.bias)


def use_few_row_products(
    module: nn.Module, forward: Callable[[], object], changes: Changes
) -> list[JoinedLinears]:
    """Make the larger plain linear layers of a model use the products above. Return the joins.

    On a CPU these are layers in float32, and in bfloat16 where the processor multiplies it.
    `forward` runs the module once, on any input.
    """
    layers = [layer for layer in module.modules() if _is_suitable(layer)]
    is_small = sum(layer.weight.numel() for layer in layers) <= MOST_PACKED
    is_on_cpu = all(layer.weight.device.type == "cpu" for layer in layers)
    joined = []
    for group in _reading_the_same(layers, forward):
        with_copy = is_small and is_on_cpu and can_pack(group[0].weight.dtype)
        product = JoinedLinears(group, with_copy)
        joined.append(product)
        for index, layer in enumerate(group):
            part = partial(product.part, index)
            changes.replace(layer, "forward", part, "linear layer for few rows")
    return joined


def _is_suitable(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear or layer.weight.numel() < SMALLEST:
        return False
    if layer.weight.device.type != "cpu" or layer.weight.dtype == torch.float32:
        return True
    return layer.weight.dtype == torch.bfloat16 and can_pack(torch.bfloat16)


def _reading_the_same(
    layers: list[nn.Linear], forward: Callable[[], object]
) -> list[list[nn.Linear]]:
    """The layers in groups: those that are called in a row with the same tensor are one group.

    A layer that is never called is a group of its own.
    """
    calls: list[tuple[nn.Linear, Tensor]] = []

    def note(layer: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        calls.append((layer, inputs[0]))

    hooks = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        forward()
    finally:
        for hook in hooks:
            hook.remove()
    groups: list[list[nn.Linear]] = []
    placed: set[nn.Linear] = set()
    before = None
    for layer, rows in calls:
        if layer in placed:  # A layer that is used twice.
            before = None
            continue
        if rows is before and (layer.bias is None) == (groups[-1][0].bias is None):
            groups[-1].append(layer)
        else:
            groups.append([layer])
        placed.add(layer)
        before = rows
    return groups + [[layer] for layer in layers if layer not in placed]
