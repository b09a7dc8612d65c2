"""The clock of all measurements. It waits for the device before it is read."""

import time

import torch


def synchronise(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def host_now() -> float:
    """Seconds of a monotonic clock, for a caller that need not wait for a device."""
    return time.perf_counter()


def now(device: torch.device) -> float:
    """Seconds of the same clock, read once the device has finished its work."""
    synchronise(device)
    return host_now()
