"""Batches of answers, and the rows of one that heads learn from."""

import torch

from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from training.batches import NO_TARGET, Lesson, batches


def test_an_epoch_of_batches_has_every_example_once_and_no_batch_is_too_large():
    examples = [([number] * (1 + number % 7), 0) for number in range(50)]
    source = batches(examples, batch_tokens=20, seed=1)
    seen: list[int] = []
    while len(seen) < len(examples):
        group = next(source)
        assert len(group) * max(len(ids) for ids, _ in group) <= 20
        seen += [ids[0] for ids, _ in group]
    assert sorted(seen) == list(range(50))


def test_a_row_is_used_where_the_root_behind_it_is_in_the_answer(tmp_path):
    loaded = load(str(write_base(tmp_path)), device="cpu")
    lesson = Lesson.of(loaded, [([1, 5, 6, 7, 8, 2], 2), ([1, 9, 4], 2)], ahead=2)
    assert lesson.is_used.tolist() == [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert lesson.shifted(lesson.ids, 1).tolist() == [6, 7, 8, 2, 4]  # The roots.
    assert lesson.targets(2).tolist() == [7, 8, 2, NO_TARGET, NO_TARGET]
    assert lesson.targets(3).tolist() == [8, 2, NO_TARGET, NO_TARGET, NO_TARGET]
    alone = loaded.model.hidden_states_of(torch.tensor([[1, 9, 4]]))[0]
    torch.testing.assert_close(lesson.shifted(lesson.hidden_states, 0)[-1], alone[1])
