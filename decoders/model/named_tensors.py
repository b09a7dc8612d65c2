"""Tensors of a file, checked by name and shape and copied to where they belong."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def fill(places: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """Copy every tensor to the place of its name. Dtypes may differ.

    what: the plural for messages, such as "4 heads of 1 blocks". ValueError names the first tensor
    that is missing, has no place, or is misshapen or no floating point; then nothing is copied.
    """
    for name in sorted(places.keys() | tensors.keys()):
        if name not in tensors:
            raise ValueError(f"tensor {name!r} is missing; {what} have it")
        if name not in places:
            raise ValueError(f"tensor {name!r} does not belong to {what}")
        tensor, place = tensors[name], places[name]
        if not tensor.is_floating_point():
            raise ValueError(f"tensor {name!r} is {tensor.dtype}; expected floating point")
        if tensor.shape != place.shape:
            raise ValueError(
                f"tensor {name!r} is {list(tensor.shape)}; this base model needs "
                f"{list(place.shape)}"
            )
    for name, place in places.items():
        place.copy_(tensors[name])


def without_copies(
    tensors: Mapping[str, Tensor], copies: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The tensors without those that only repeat what the base model has.

    These are `copies`, shapes by name, and rotary frequencies. ValueError where a copy is
    misshapen: the file is for another base model.
    """
    for name, shape in copies.items():
        if name in tensors and tuple(tensors[name].shape) != tuple(shape):
            raise ValueError(
                f"tensor {name!r} is {list(tensors[name].shape)}; this base model needs "
                f"{list(shape)}"
            )
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in copies and not name.endswith("rotary_emb.inv_freq")
    }
