"""Batches of answers, and the rows of one that heads learn from."""

import torch

from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from tests.helpers.lessons import lesson_of
from training.batches import NO_TARGET, batches


def test_an_epoch_of_batches_has_every_example_once_and_no_batch_is_too_large():
    lengths = [1 + number % 7 for number in range(50)]
    source = batches(lengths, batch_tokens=20, seed=1)
    seen: list[int] = []
    while len(seen) < len(lengths):
        group = next(source)
        assert len(group) * max(map(lengths.__getitem__, group)) <= 20
        seen += group
    assert sorted(seen) == list(range(50))


def test_a_row_is_used_where_the_root_after_it_is_in_the_answer(tmp_path):
    loaded = load(str(write_base(tmp_path)), device="cpu")
    lesson, _ = lesson_of(loaded, [([1, 5, 6, 7, 8, 2], 2), ([1, 9, 4], 2)], ahead=2)
    assert lesson.is_used.tolist() == [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]
    assert lesson.shifted(lesson.ids, 1).tolist() == [6, 7, 8, 2, 4]  # The roots.
    assert lesson.targets(2).tolist() == [7, 8, 2, NO_TARGET, NO_TARGET]
    assert lesson.targets(3).tolist() == [8, 2, NO_TARGET, NO_TARGET, NO_TARGET]
    alone = loaded.model.hidden_states_of(torch.tensor([[1, 9, 4]]))[0]
    torch.testing.assert_close(lesson.shifted(lesson.hidden_states, 0)[-1], alone[1])
