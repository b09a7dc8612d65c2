"""What a training will take, said before it is spent."""

import sys

import psutil
import torch

from bench.common.errors import warn

BYTES = 16  # Memory of a parameter in training: weight, gradient, the optimizer's two moments.


def say_memory(parameters: int, device: torch.device) -> None:
    """Print how much memory training so many parameters takes. Warn where there is less."""
    needed = parameters * BYTES
    print(
        f"training {parameters / 1e6:.1f} M parameters takes about {needed / 1e9:.2f} GB for "
        "weights, gradients and the optimizer, and more for each batch",
        file=sys.stderr,
    )
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    if needed > free:
        warn(f"only {free / 1e9:.2f} GB are free; use fewer heads or layers, or another --device")


def time_left(minutes: float) -> str:
    """A line for the progress bar, once the speed is known."""
    return f"at this speed, about {max(1, round(minutes))} more minutes"
