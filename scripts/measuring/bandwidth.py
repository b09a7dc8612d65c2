"""How long work takes on a device, and how fast it copies memory."""

import statistics
from collections.abc import Callable

import torch

from bench.running.clock import now

COPIED = 1 << 30  # Bytes.
COPIED_ON_CPU = 1 << 26
COPIES = 10


def seconds_of(device: torch.device, work: Callable[[], object]) -> float:
    """Seconds that some work takes, until the device has finished it."""
    began = now(device)
    work()
    return now(device) - began


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second that a copy within a device's memory moves, as a median.

    Reads and writes are both counted.
    """
    size = COPIED if device.type == "cuda" else COPIED_ON_CPU
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    samples = [seconds_of(device, lambda: target.copy_(source)) for _ in range(1 + COPIES)]
    return 2 * size / statistics.median(samples[1:])  # The first one touches new memory.
