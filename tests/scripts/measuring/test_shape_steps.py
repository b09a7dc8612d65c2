"""bench_7b_shape.py writes down what it says it does."""

import json

import bench_7b_shape
import pytest

from measuring.shape_steps import DECODERS, NOTHING, PROFILED
from tests.helpers.commands import script

SMALL = [
    "--hidden", 64, "--layers", 2, "--vocab", 300, "--context", 200, "--length", 16, "--tokens", 8,
    "--rounds", 1, "--device", "cpu", "--dtype", "float32",
]  # fmt: skip


def test_step_times_of_a_shape_and_its_kernels(tmp_path, capsys):
    out = tmp_path / "shape.json"
    assert script(bench_7b_shape.main, *SMALL, "--kernels", "--out", out) == 0
    report = json.loads(out.read_text())
    static = [row["decoder"] for row in report["rows"] if row["static_shapes"]]
    assert static == list(DECODERS)
    assert "greedy reads" in capsys.readouterr().out
    for spec in PROFILED:
        kernels = report["kernels"][spec]
        seconds = [each["seconds"] for each in kernels]
        assert seconds == sorted(seconds, reverse=True)
        # Two attentions a step, and none of those of the prefill and the first step.
        attentions = [each for each in kernels if "scaled_dot_product_flash" in each["name"]]
        assert [each["calls"] for each in attentions] == [2.0]


def test_steps_without_each_change(tmp_path, capsys):
    out = tmp_path / "shape.json"
    assert script(bench_7b_shape.main, *SMALL, "--without-each", "--out", out) == 0
    report = json.loads(out.read_text())
    assert report["changes"]
    assert [(row["without"], row["decoder"]) for row in report["without"]] == [
        (purpose, spec) for purpose in (NOTHING, *report["changes"]) for spec in PROFILED
    ]
    assert all(row["step_s"] > 0 for row in report["without"])
    assert f"without {NOTHING}: greedy" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--layers", 0), "--layers: '0' is not an integer from 1 on"),
        (("--hidden", 33), "--hidden is 33; expected a multiple of 32"),
        (("--length", 190), "--length 190 and 8 steps do not fit in --context 200"),
        (("--dtype", "int8"), "--dtype is 'int8'; expected float16"),
    ],
)
def test_a_shape_that_cannot_be_measured_is_said(arguments, says, capsys):
    assert script(bench_7b_shape.main, *SMALL, *arguments) == 2
    assert says in capsys.readouterr().err
