"""The frozen model's hidden states of examples, which may be kept in a file.

A training reads every example several times, and so do other kinds of heads. The model's hidden
states are the same each time. Kept ones take 2 bytes a number, and spare all further passes of the
model.
"""

import shutil
import sys
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bench.common.errors import UserError
from bench.common.files import writing
from decoders.model.model import Model
from training.corpus import Example

DTYPE = torch.float16  # Of kept numbers.


class HiddenStates:
    """Hidden states that the model makes anew each time."""

    def __init__(self, model: Model, autocast: bool = False) -> None:
        """autocast: whether products are made in bfloat16."""
        self.model = model
        self.autocast = autocast

    def of(self, numbers: Sequence[int], ids: Tensor) -> Tensor:
        """Hidden states [batch, length, hidden] of examples, padded on the right.

        Their dtype is the model's, bfloat16 under autocast, or float16 from a file. At padding they
        are arbitrary.

        numbers: which ones of all examples. ids: [batch, length] theirs, on the model's device.
        """
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=self.autocast):
            return self.model.hidden_states_of(ids)


class KeptHiddenStates(HiddenStates):
    """Hidden states that are made once, and then read from a file."""

    def __init__(
        self, model: Model, identity: str, examples: Sequence[Example], folder: Path, autocast: bool
    ) -> None:
        """identity: of the model; with the examples it names the file.

        UserError where the folder cannot be written to, or has too little room.
        """
        super().__init__(model, autocast)
        self.lengths = [len(ids) for ids, _ in examples]
        self.starts = [0, *accumulate(self.lengths)]
        self.row_bytes = model.hidden * DTYPE.itemsize
        name = f"hidden_states-{_digest(identity, examples)}"
        size = self.starts[-1] * self.row_bytes
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path, marks = folder / f"{name}.f16", folder / f"{name}.done"
            # The file may be sparse, as examples are written in any order.
            taken = _bytes_on_disk(path) if path.exists() else 0
            free = shutil.disk_usage(folder).free + taken
            if size > free:
                raise UserError(
                    f"the hidden states of {self.starts[-1]:,} tokens take {size / 1e9:.2f} GB, "
                    f"and {folder} has room for {free / 1e9:.2f}; leave --states out, or name "
                    "another folder"
                )
            self._kept = _opened(path)
            # A byte for each example: whether the file has it.
            self._marks = _opened(marks)
            self._done = bytearray(self._marks.read().ljust(len(examples), b"\0"))
        except OSError as error:
            raise UserError(f"--states {folder} cannot be used: {error.strerror}") from error
        print(
            f"{path} keeps hidden states: {sum(self._done):,} of {len(examples):,} answers so far, "
            f"{size / 1e9:.2f} GB in the end",
            file=sys.stderr,
        )

    def of(self, numbers: Sequence[int], ids: Tensor) -> Tensor:
        if not all(self._done[number] for number in numbers):
            self._keep(numbers, super().of(numbers, ids))
        # Read back in every case, so that a first pass sees what later ones see.
        states = torch.zeros(*ids.shape, self.model.hidden, dtype=DTYPE)
        for row, number in enumerate(numbers):
            self._kept.seek(self.starts[number] * self.row_bytes)
            content = self._kept.read(self.lengths[number] * self.row_bytes)
            if len(content) < self.lengths[number] * self.row_bytes:
                raise UserError(f"{self._kept.name} is cut off; remove it and {self._marks.name}")
            values = torch.frombuffer(bytearray(content), dtype=DTYPE)
            states[row, : self.lengths[number]] = values.view(-1, self.model.hidden)
        return states.to(ids.device)

    def _keep(self, numbers: Sequence[int], states: Tensor) -> None:
        """Write the hidden states [batch, length, hidden] of examples, then mark them as kept."""
        states = states.to("cpu", DTYPE)
        if not states.isfinite().all():
            raise UserError(
                "this model's hidden states do not fit into float16, in which --states keeps them; "
                "leave it out"
            )
        with writing(self._kept.name):
            for row, number in enumerate(numbers):
                self._kept.seek(self.starts[number] * self.row_bytes)
                self._kept.write(states[row, : self.lengths[number]].numpy().tobytes())
            self._kept.flush()
            for number in numbers:
                self._marks.seek(number)
                self._marks.write(b"\1")
                self._done[number] = 1
            self._marks.flush()


def _bytes_on_disk(path: Path) -> int:
    """What a file takes. Windows does not tell it of a sparse file; the size stands for it."""
    found = path.stat()
    return 512 * found.st_blocks if hasattr(found, "st_blocks") else found.st_size


def _opened(path: Path) -> BinaryIO:
    """A file to read and to write, made where it is absent."""
    path.touch()
    return path.open("r+b")


def _digest(identity: str, examples: Sequence[Example]) -> str:
    digest = sha256(identity.encode())
    for ids, _ in examples:
        digest.update(len(ids).to_bytes(4, "little") + np.array(ids, dtype=np.int32).tobytes())
    return digest.hexdigest()[:12]
