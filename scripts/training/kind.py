"""What train_heads.py needs of a kind of heads. A kind is one module with a class of this sort."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.inputs.loader import Loaded
from settings.training import HeadsSettings
from training.batches import Lesson
from training.columns import Columns


class Kind(ABC):
    """Heads in training, what they learn, and their files."""

    # Settings that have no effect on this kind.
    ignored_settings: ClassVar[tuple[str, ...]] = ()
    # What `losses` are of, for the progress bar.
    loss_names: ClassVar[str] = "loss by head"

    heads: nn.Module  # What is trained, in float32 on the base model's device.
    ahead: int  # Tokens after the root that the heads learn to guess at each position.
    shares_projection: bool  # Whether the heads end in the base model's output projection.
    loss_weights: list[float]  # [losses] their weights in the sum that is minimised.
    title: str  # What is trained, in words.

    @abstractmethod
    def __init__(self, loaded: Loaded, settings: HeadsSettings) -> None:
        """The heads to begin with."""

    @abstractmethod
    def losses(self, lesson: Lesson, columns: Columns | None) -> Tensor:
        """The mean losses [losses] of one batch. 0 where one has no target at all.

        columns: of the base model's output projection. None: heads have projections of their own.
        """

    @abstractmethod
    def write(self, out: Path, dtype: torch.dtype) -> Path:
        """Write the result into a folder below `out`. Returns that folder."""

    @property
    def parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.heads.parameters())
