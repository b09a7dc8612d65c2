"""The device of a model, and how much of its memory the model may take."""

import torch
from accelerate.utils import convert_file_size_to_int

from bench.common.errors import UserError
from bench.inputs.spelling import BALANCED, unknown_device


def check_device(device: str, quantised: bool = False) -> str:
    """The given device, or the one that "auto" means here. UserError where this machine lacks it.

    quantised: whether the model is loaded in 8 or 4 bits, which needs CUDA.
    """
    accelerator = None
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
    if device == "auto":
        device = accelerator.type if accelerator else "cpu"
    try:
        asked = torch.device("cuda" if device == BALANCED else device)
    except RuntimeError:
        raise unknown_device(device) from None
    kind = asked.type
    device = "cpu" if kind == "cpu" else device
    if kind != "cpu" and (accelerator is None or accelerator.type != kind):
        has = f"only {accelerator.type}" if accelerator else "no accelerator"
        raise UserError(
            f"device {device!r} was asked for, but this machine has {has}; use --device cpu or auto"
        )
    if kind != "cpu" and (asked.index or 0) >= (count := torch.accelerator.device_count()):
        raise UserError(
            f"device {device!r} was asked for, but this machine has {count} of these, and they are "
            f"numbered from 0; the last is {kind}:{count - 1}"
        )
    if quantised and kind != "cuda":
        raise UserError(
            f"8-bit and 4-bit loading need a CUDA GPU; the device is {device!r}. Leave the flag "
            "out here"
        )
    return device


def gpu_memory(gpus: int | None, each: str | None) -> dict[int, int | str]:
    """Number of a GPU -> the memory that it has for a model's weights, in bytes or as text.

    gpus: how many GPUs, from the first on. None: all. each: a size such as "20GiB". None: the
    memory that is free. UserError where there are fewer GPUs, or `each` is no size.
    """
    available = torch.cuda.device_count()
    if gpus is not None and not 1 <= gpus <= available:
        raise UserError(f"{gpus} GPUs were asked for one model, but this machine has {available}")
    if each is not None:
        try:
            convert_file_size_to_int(each)
        except ValueError:
            raise UserError(
                f"a GPU memory of {each!r} was asked for; expected a size such as 20GiB"
            ) from None
    numbers = range(gpus or available)
    return {gpu: each or torch.cuda.mem_get_info(gpu)[0] for gpu in numbers}
