"""The clock of all measurements. It waits for the device before it is read."""

import time

import torch


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, once the device has done what it was given."""
    synchronise(device)
    return time.perf_counter()
