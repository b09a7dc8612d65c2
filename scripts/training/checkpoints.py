"""The state of a training, on disk, so that the same command goes on after an interruption."""

import pickle
import struct
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch

from bench.common.errors import UserError, warn
from bench.common.files import digest_of, shown, unreadable

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
FIRST_S = 10.0  # Seconds before the first writing: an early interruption loses little.
SETTINGS = "settings"  # The entry of the state that says what was trained on, and how.


def settled(settings: object, open_fields: tuple[str, ...], **more: object) -> dict[str, object]:
    """What a training must be continued with: all settings but `open_fields`, which may change.

    A file is named by its digest, as its content may change and its place does not matter.
    settings: a dataclass. more: further things that decide, such as the identity of the model.
    """
    found = {
        field.name: getattr(settings, field.name)
        for field in fields(settings)
        if field.name not in open_fields
    }
    return {name: _plain(value) for name, value in (found | more).items()}


def _plain(value: object) -> object:
    """A value as torch saves it among tensors. UserError where a file cannot be read."""
    if isinstance(value, Path):
        try:
            return f"sha256 {digest_of(value)[:16]}"
        except OSError as error:
            raise unreadable(value, error) from error
    return list(value) if isinstance(value, tuple) else value


class Checkpoint:
    """The file of a training's state."""

    def __init__(self, path: Path, settings: Mapping[str, object], every_s: float = 0.0) -> None:
        """settings: what the training must be continued with.

        every_s: seconds that `is_due` leaves between two writings. The first one comes sooner.
        """
        self.path = path
        self.settings = dict(settings)
        self.every_s = every_s
        self._next = time.monotonic() + min(every_s, FIRST_S)

    def read(self) -> dict | None:
        """The state, on the CPU: loading it into a model moves it. None: there is none yet.

        UserError where the file is damaged, or of a training with other settings.
        """
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
            before = state.get(SETTINGS)
        except (*UNREADABLE, AttributeError) as error:
            raise UserError(
                f"{self.path} is not a checkpoint that can be read; remove it to start again"
            ) from error
        if before is None:
            warn(f"{self.path} does not say with which settings it was made; they are not compared")
        else:
            self._refuse_differences(before)
        return state

    def _refuse_differences(self, before: Mapping[str, object]) -> None:
        differences = [
            f"{name}: {shown(before.get(name))} there, {shown(self.settings.get(name))} now"
            for name in sorted(before.keys() | self.settings.keys())
            if before.get(name) != self.settings.get(name)
        ]
        if differences:
            raise UserError(
                f"{self.path} is of another training ({'; '.join(differences)}); give another "
                "--out, the same settings to go on, or remove the file to start again"
            )

    @property
    def is_due(self) -> bool:
        """Whether it is time to write: soon after the start, then `every_s` after each writing."""
        return time.monotonic() >= self._next

    def save(self, state: dict) -> None:
        """Write the state. An interruption leaves the last one or this one, never half of one."""
        temporary = self.path.with_suffix(".tmp")
        torch.save(state | {SETTINGS: self.settings}, temporary)
        temporary.replace(self.path)
        self._next = time.monotonic() + self.every_s
