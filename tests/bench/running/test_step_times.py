"""What budgets begin with: step times that are measured, or those of a run."""

import json
from itertools import count

import pytest

from bench.running import step_times as module
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.runner import Runner
from bench.running.step_times import NOISY, draft_times, given_times, measured_times, step_times
from bench.store.turn import read_turns
from decoders.budget import LADDER
from decoders.step_costs import StepTimes
from tests.helpers.commands import basics, bench
from tests.helpers.steps import FREE, bound, steps_of, tokens_of

AUTO = "dynamic:nodes=auto,conditional:nodes=auto"


def test_measured_times_are_of_every_size_and_leave_the_model_usable(tiny_model):
    expected = tokens_of(steps_of(tiny_model, "greedy"))
    times, spread = step_times(tiny_model, (1, 4, 16), rounds=1)
    assert len(times.seconds) == len(times.lengths)
    assert all(len(row) == 3 and min(row) > 0 for row in times.seconds)
    assert spread >= 0
    drafts = draft_times(bound(tiny_model, "dynamic:nodes=auto", FREE), rounds=1)
    assert list(drafts) == [2, 3, 4] and min(drafts.values()) > 0
    assert tokens_of(steps_of(tiny_model, "greedy")) == expected


@pytest.mark.parametrize("busy_blocks", [0, 1])
def test_sizes_that_take_too_long_are_timed_once_more_and_then_no_further(
    tiny_model, monkeypatch, busy_blocks
):
    """Times are a size's nodes in seconds, but for another job that disturbs the first of size 4.

    Steps of 16 nodes take more than 4.5 times as long as one of a single node.
    """
    timed = []

    class Stopwatch:
        def __init__(self, model, length, tokens, sizes):
            timed.append(("begins", length, tuple(sizes)))

        def block(self, size):
            timed.append(size)
            is_busy = size == 4 and timed.count(4) <= busy_blocks
            return [99.0 if is_busy else float(size)] * 3

    monkeypatch.setattr(module, "_Stopwatch", Stopwatch)
    times, spread = step_times(tiny_model, (1, 4, 16, 64), rounds=2)
    assert times.sizes == (1, 4) and spread == 0
    assert times.seconds == ((1.0, 4.0),) * len(times.lengths)
    assert timed.count(16) == 2 and timed.count(64) == 0
    assert timed[-5:] == [("begins", times.lengths[-1], (1, 4)), 1, 4, 1, 4]


def test_times_are_of_steps_of_the_size_that_was_asked_for(tiny_model, monkeypatch):
    """Each step's time is its number of nodes here."""
    stopwatch = module._Stopwatch(tiny_model, 8, 64, (1, 4, 16))
    clock = iter(range(10_000))
    monkeypatch.setattr(module, "now", lambda device: next(clock))
    seen = []
    for size in (4, 1, 16, 4):
        assert len(stopwatch.block(size)) > 0
        seen.append(next(stopwatch.steps).nodes)
    assert seen == [4, 1, 16, 4]


def test_a_budget_is_not_moved_by_the_measuring(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    before = dict(vars(decoder.budget))
    draft_times(decoder, rounds=1)
    assert vars(decoder.budget) == before and decoder.max_nodes == LADDER[-1]


@pytest.mark.parametrize(
    ("spreads", "kept", "says"),
    [
        ([NOISY], [1.0, 3.0], ""),
        ([0.5, NOISY], [2.0, 2.0], "step times varied by 50 %, so they were measured again"),
        ([0.5, 0.4], [1.0, 2.0], "step times vary by 50 % and 40 %, as on a busy machine"),
    ],
)
def test_a_noisy_measurement_is_repeated_once_and_that_is_said(
    spreads, kept, says, monkeypatch, capsys
):
    """Of two noisy ones, the shorter times are kept."""
    rows = iter([(1.0, 3.0), (2.0, 2.0)])
    measurements = [(StepTimes((64,), (1, 4), (next(rows),)), spread) for spread in spreads]
    remaining = iter(measurements)
    monkeypatch.setattr(module, "step_times", lambda model: next(remaining))
    times = measured_times(None)
    assert times.steps.seconds == (tuple(kept),) and list(times.spread) == spreads
    assert says in capsys.readouterr().err
    assert not list(remaining)


def test_a_noisy_measurement_that_took_long_is_not_repeated(monkeypatch, capsys):
    clock = iter([0.0, module.ENOUGH_S + 1])
    monkeypatch.setattr(module, "host_now", lambda: next(clock))
    noisy = StepTimes((64,), (1, 4), ((1.0, 3.0),))
    monkeypatch.setattr(module, "step_times", lambda model: (noisy, 0.4))
    assert measured_times(None).steps == noisy
    assert "step times vary by 40 %, as on a busy machine; nodes=auto" in capsys.readouterr().err


def test_on_a_slow_machine_each_length_is_measured_once(tiny_model, monkeypatch):
    timed = []

    class Stopwatch:
        def __init__(self, model, length, tokens, sizes):
            self.length = length

        def block(self, size):
            timed.append((self.length, size))
            return [1.0] * 3

    monkeypatch.setattr(module, "_Stopwatch", Stopwatch)
    monkeypatch.setattr(module, "LENGTHS", (8, 16))
    monkeypatch.setattr(module, "_usable", lambda stopwatch, sizes: sizes)
    clock = iter([0.0, 1.0, module.ENOUGH_S])  # At the beginning, and after each length's round.
    monkeypatch.setattr(module, "host_now", lambda: next(clock))
    step_times(tiny_model, (1, 4), rounds=2)
    assert timed == [(8, 1), (8, 4), (8, 1), (8, 4), (16, 1), (16, 4)]


def test_on_a_slow_machine_drafting_is_measured_once_at_each_depth(tiny_model, monkeypatch):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    original, decoded = module.decode, []
    monkeypatch.setattr(module, "decode", lambda *given: decoded.append(1) or original(*given))
    seconds = count(step=module.ENOUGH_S + 1)
    monkeypatch.setattr(module, "host_now", lambda: next(seconds))
    draft_times(decoder)
    assert len(decoded) == 2 * 3  # At each depth: a draft to hold, and a block of either kind.


def test_drafting_to_a_depth_between_takes_a_time_between(tiny_model, monkeypatch):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE)
    of_depth = {2: 1.0, 4: 2.0}
    monkeypatch.setattr(module, "_draft_time", lambda decoder, depth, rounds: of_depth[depth])
    assert draft_times(decoder) == {2: 1.0, 3: 1.5, 4: 2.0}
    of_depth[2] = 3.0  # Noise.
    assert draft_times(decoder) == {2: 3.0, 3: 3.0, 4: 3.0}


def test_of_two_noisy_measurements_only_the_sizes_of_both_are_kept(monkeypatch, capsys):
    measured = iter(
        [
            (StepTimes((64,), (1, 4, 6), ((1.0, 3.0, 4.0),)), 0.5),
            (StepTimes((64,), (1, 4), ((2.0, 2.0),)), 0.5),
        ]
    )
    monkeypatch.setattr(module, "step_times", lambda model: next(measured))
    assert measured_times(None).steps == StepTimes((64,), (1, 4), ((1.0, 2.0),))


@pytest.mark.parametrize(
    ("samples", "spread"), [([2.0], 0), ([1, 1, 1], 0), ([1, 2, 3], 0.5), ([1, 1, 1, 99], 24.5)]
)
def test_the_spread_is_that_of_the_middle_half(samples, spread):
    assert module._spread(samples) == pytest.approx(spread)


def steps_by_turn(folder) -> dict:
    turns, _ = read_turns(folder / "turns.jsonl")
    return {turn.key: (turn.token_ids, turn.nodes) for turn in turns}


def test_a_runs_times_can_be_kept_to(model, questions, tmp_path):
    """Its folder or its run.json. Budgets then follow no clock, so nodes are the same again."""
    folders = [tmp_path / name for name in ("measured", "first", "second")]
    given = [[], ["--step-times", folders[0]], ["--step-times", folders[1] / "run.json"]]
    for folder, more in zip(folders, given, strict=True):
        assert bench(*basics(model, questions, folder), "--decoder", AUTO, *more) == 0
    assert steps_by_turn(folders[1]) == steps_by_turn(folders[2])
    measured, first, second = (json.loads((each / "run.json").read_text()) for each in folders)
    for name in ("step_times", "draft_times"):
        assert measured[name] == first[name] == second[name]
    assert first["config"]["step_times"] == str(folders[0])
    assert measured["step_times_spread"] and first["step_times_spread"] is None
    digest = "step_times_sha256"
    assert first["config"][digest] == second["config"][digest] and digest not in measured["config"]


def test_other_times_under_the_same_name_are_another_run(model, questions, tmp_path, capsys):
    times, out = tmp_path / "times", tmp_path / "out"
    few = ["--decoder", AUTO, "--limit", 1, "--max-new-tokens", 4]
    assert bench(*basics(model, questions, times), *few) == 0
    command = [*basics(model, questions, out), *few, "--step-times", times]
    assert bench(*command) == 0
    path = times / "run.json"
    run = json.loads(path.read_text())
    run["step_times"]["seconds"][0][0] *= 2
    path.write_text(json.dumps(run))
    assert bench(*command) == 2
    assert "holds a run of another configuration (step_times_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        ("greedy,dynamic", "--step-times has no effect on greedy, dynamic: none has nodes=auto"),
        ("conditional:nodes=auto", "is of a run without 'conditional:nodes=auto'; it has dynamic:"),
        ("dynamic:nodes=auto:depth=3", "is of a run without 'dynamic:nodes=auto:depth=3'"),
    ],
)
def test_times_that_do_not_fit_are_told(decoder, says, model, questions, tmp_path, capsys):
    times = tmp_path / "times"
    few = ["--limit", 1, "--max-new-tokens", 4]
    arguments = basics(model, questions, times)
    assert bench(*arguments, *few, "--decoder", "dynamic:nodes=auto") == 0
    arguments = basics(model, questions, tmp_path / "out")
    assert bench(*arguments, *few, "--decoder", decoder, "--step-times", times) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_times_of_a_run_with_other_depths_are_told(model, questions, tmp_path, capsys):
    """Such as one with another number of heads."""
    times = tmp_path / "times"
    few = ["--limit", 1, "--max-new-tokens", 4, "--decoder", "dynamic:nodes=auto"]
    assert bench(*basics(model, questions, times), *few) == 0
    path = times / "run.json"
    run = json.loads(path.read_text())
    run["draft_times"]["dynamic:nodes=auto"]["9"] = 0.1
    path.write_text(json.dumps(run))
    arguments = basics(model, questions, tmp_path / "out")
    assert bench(*arguments, *few, "--step-times", times) == 2
    assert "drafts to the depths [2, 3, 4], but the step times are of a run with [2, 3, 4, 9]" in (
        capsys.readouterr().err
    )


def test_budgets_are_told_the_times_of_their_steps_unless_times_are_given(
    model, questions, tmp_path, monkeypatch
):
    told = []
    monkeypatch.setattr("decoders.budget.AutoBudget.took", lambda self, seconds: told.append(1))
    folder = tmp_path / "run"
    few = ["--limit", 1, "--max-new-tokens", 4, "--decoder", "dynamic:nodes=auto"]
    assert bench(*basics(model, questions, folder), *few) == 0
    turns, _ = read_turns(folder / "turns.jsonl")
    assert len(told) == sum(len(turn.nodes) for turn in turns)
    told.clear()
    arguments = basics(model, questions, tmp_path / "again")
    assert bench(*arguments, *few, "--step-times", folder) == 0
    assert not told


def test_given_times_are_those_of_the_file(model, questions, tmp_path):
    folder = tmp_path / "run"
    few = ["--limit", 1, "--max-new-tokens", 4, "--decoder", "dynamic:nodes=auto"]
    assert bench(*basics(model, questions, folder), *few) == 0
    config = RunConfig(
        decoders=("dynamic:nodes=auto",), model=model, device="cpu", step_times=str(folder)
    )
    times = given_times(config, make_decoders(config))
    run = json.loads((folder / "run.json").read_text())
    assert [list(row) for row in times.steps.seconds] == run["step_times"]["seconds"]
    decoder = Runner.load(config).decoders["dynamic:nodes=auto"]
    assert decoder.budget.times == times.steps
    assert decoder.budget.draft_s == times.draft_s["dynamic:nodes=auto"]
