"""bench_step.py writes down what it says it does."""

import bench_step
import pytest

from bench.store.step_profile import read_phases
from tests.helpers.commands import script


def test_steps_are_timed_by_phase_at_every_length(model, tmp_path, capsys):
    out = tmp_path / "step.json"
    arguments = [
        "--model", model, "--device", "cpu", "--decoder", "static,small=dynamic:nodes=8",
        "--lengths", "8,16", "--rounds", 2, "--steps", 3, "--out", out,
    ]  # fmt: skip
    assert script(bench_step.main, *arguments) == 0
    steps = read_phases(out)
    rows = steps.rows
    assert all(steps.conditions[name] for name in ("model", "device", "dtype"))
    assert "small" in capsys.readouterr().out
    labels = ["greedy", "static", "small"]
    assert [(row["length"], row["decoder"]) for row in rows] == [
        (length, label) for length in (8, 16) for label in labels
    ]
    assert [row["nodes"] for row in rows] == 2 * [1, 64, 8]
    assert all(row["samples"] == 6 and row["synchronisations"] == 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--lengths", "0"), "--lengths: '0' is not a list of integers from 1 on"),
        (("--lengths", "8,x"), "--lengths: '8,x' is not a list of integers from 1 on"),
        (("--lengths", "150"), "--lengths has 150, which may grow to"),
        (("--steps", "0"), "--steps: '0' is not an integer from 1 on"),
        (("--out", "nowhere/step.json"), "there is no folder nowhere"),
        (("--decoder", "dynamc"), "Did you mean 'dynamic'"),
        (("--decoder", "dynamic:nodes=auto"), "its steps are of many sizes"),
        (("--decoder", "hf-greedy"), "its steps are not our loop's"),
        (("--decoder", "dynamic:depth=9"), "depth 9, but the model has 4 heads"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, says, model, capsys):
    assert script(bench_step.main, "--model", model, "--device", "cpu", *arguments) == 2
    assert says in capsys.readouterr().err
