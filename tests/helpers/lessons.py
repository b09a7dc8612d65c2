"""What heads learn from a group of examples, in float32 and over the whole vocabulary."""

import torch

from bench.inputs.loader import Loaded
from training.batches import Lesson
from training.columns import ColumnChoice, Columns
from training.corpus import Example
from training.hidden_states import HiddenStates


def lesson_of(loaded: Loaded, group: list[Example], ahead: int) -> tuple[Lesson, Columns]:
    numbers = range(len(group))
    states = HiddenStates(loaded.model)
    lesson = Lesson.of(group, ahead, lambda ids: states.of(numbers, ids), loaded.model.device)
    projection = loaded.model.lm.get_output_embeddings()
    return lesson, ColumnChoice(projection, group, None, 0, torch.float32).of_batch(lesson.ids, 0)
