from bench.running.step_times import draft_times, step_times
from decoders.budget import LADDER
from tests.helpers.steps import FREE, bound, steps_of, tokens_of


def test_measured_times_are_of_every_size_and_leave_the_model_usable(tiny_model):
    expected = tokens_of(steps_of(tiny_model, "greedy"))
    times = step_times(tiny_model, (1, 4, 16), rounds=1)
    assert len(times.seconds) == len(times.lengths)
    assert all(len(row) == 3 and min(row) > 0 for row in times.seconds)
    drafts = draft_times(bound(tiny_model, "dynamic:nodes=auto", FREE), rounds=1)
    assert list(drafts) == [2, 3, 4] and min(drafts.values()) >= 0
    assert tokens_of(steps_of(tiny_model, "greedy")) == expected


def test_a_budget_is_not_moved_by_the_measuring(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    before = dict(vars(decoder.budget))
    draft_times(decoder, rounds=1)
    assert vars(decoder.budget) == before and decoder.max_nodes == LADDER[-1]
