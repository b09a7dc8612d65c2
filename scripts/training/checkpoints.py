"""The state of a training, on disk, so that the same command goes on after an interruption."""

import pickle
import struct
import time
from pathlib import Path

import torch

from bench.common.errors import UserError

UNREADABLE = (
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
)


class Checkpoint:
    """The file of a training's state."""

    def __init__(self, path: Path, every_s: float = 0.0) -> None:
        """every_s: seconds that `is_due` leaves between two writings."""
        self.path = path
        self.every_s = every_s
        self._saved = time.monotonic()

    def read(self, device: torch.device | str) -> dict | None:
        """The state. None: there is none yet. UserError where the file is damaged."""
        if not self.path.exists():
            return None
        try:
            return torch.load(self.path, weights_only=True, map_location=device)
        except UNREADABLE as error:
            raise UserError(
                f"{self.path} is not a checkpoint that can be read; remove it to start again"
            ) from error

    @property
    def is_due(self) -> bool:
        """Whether `every_s` seconds have passed since the start, or since the last writing."""
        return time.monotonic() - self._saved > self.every_s

    def save(self, state: dict) -> None:
        """Write the state. An interruption leaves the last one or this one, never half of one."""
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.path)
        self._saved = time.monotonic()
