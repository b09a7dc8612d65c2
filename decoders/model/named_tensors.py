"""Tensors of a file under published names: checked, and handed to a module."""

from collections.abc import Mapping, Sequence

from torch import Tensor


def check_tensors(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], what: str) -> None:
    """ValueError names the first tensor that is missing, unknown, misshapen, or not of floats.

    Also the first one that holds NaN or infinite numbers.

    expected: tensors of the right names and shapes. what: a plural for messages, such as "3 heads".
    """
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise ValueError(f"tensor {name!r} is missing; {what} have it")
        if name not in expected:
            raise ValueError(f"tensor {name!r} does not belong to {what}")
        if not tensors[name].is_floating_point():
            raise ValueError(f"tensor {name!r} is {tensors[name].dtype}; expected floating point")
        _check_shape(name, tensors[name], expected[name].shape)
    check_finite(tensors)


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """ValueError names the first tensor of heads that holds NaN or infinite numbers."""
    for name in sorted(tensors):
        tensor = tensors[name]
        # torch has no isfinite for floats of 8 bits, so these are converted first.
        if (tensor if tensor.itemsize > 1 else tensor.half()).isfinite().all():
            continue
        raise ValueError(
            f"tensor {name!r} holds NaN or infinite numbers: the training of these heads "
            "diverged, or the file is damaged"
        )


def without_copies(
    tensors: Mapping[str, Tensor], copies: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """The tensors without those that only repeat what the base model has.

    These are `copies`, shapes by name, and rotary frequencies. ValueError where a copy is
    misshapen: the file is for another base model.
    """
    for name in sorted(copies.keys() & tensors.keys()):
        _check_shape(name, tensors[name], copies[name])
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in copies and not name.endswith("rotary_emb.inv_freq")
    }


def _check_shape(name: str, tensor: Tensor, wanted: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(wanted):
        raise ValueError(
            f"tensor {name!r} is {list(tensor.shape)}; this base model needs {list(wanted)}"
        )
