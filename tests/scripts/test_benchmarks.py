"""The benchmark scripts run, and write down what they say they do."""

import json

import bench_7b_shape
import bench_products
import pytest
import torch

from tests.helpers.commands import script


def test_step_times_of_a_shape_and_its_kernels(tmp_path, capsys):
    arguments = [
        "--hidden", 64, "--layers", 2, "--vocab", 300, "--context", 200, "--length", 16, "--tokens", 8, "--rounds", 1,
        "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    out = tmp_path / "shape.json"
    assert script(bench_7b_shape.main, *arguments, "--kernels", "--out", out) == 0
    report = json.loads(out.read_text())
    assert [row["decoder"] for row in report["rows"] if row["static_shapes"]] == list(
        bench_7b_shape.DECODERS
    )
    assert "greedy reads" in capsys.readouterr().out
    for spec in bench_7b_shape.PROFILED:
        kernels = report["kernels"][spec]
        assert [each["seconds"] for each in kernels] == sorted(
            (each["seconds"] for each in kernels), reverse=True
        )
        # Two attentions a step, and none of those of the prefill and the first step.
        assert [
            each["calls"] for each in kernels if "scaled_dot_product_flash" in each["name"]
        ] == [2.0]
    assert script(bench_7b_shape.main, *arguments, "--layers", 0) == 2
    assert "--layers is 0" in capsys.readouterr().err


def test_products_are_timed_in_every_way_that_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_products, "BEYOND_CACHES", 1 << 16)
    out = tmp_path / "products.json"
    assert (
        script(
            bench_products.main,
            "--sizes",
            "48x32,32x64",
            "--rows",
            "1,4",
            "--rounds",
            2,
            "--out",
            out,
        )
        == 0
    )
    report = json.loads(out.read_text())
    made = [
        (row["out"], row["in"], row["rows"]) for row in report["rows"] if row["way"] == "columns"
    ]
    assert made == [(48, 32, 1), (48, 32, 4), (32, 64, 1), (32, 64, 4)]
    for row in report["rows"]:
        assert row["bytes_per_s"] == pytest.approx(4 * row["out"] * row["in"] / row["seconds"])
    assert "48 x 32" in capsys.readouterr().out
    assert bench_products.demo_sizes()[0] == (
        512,
        256,
    )  # queries, keys and values of the demo, which read the same rows


def test_a_way_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench_products, "BEYOND_CACHES", 1 << 10)
    monkeypatch.setattr(
        bench_products, "columns", lambda rows, weight: torch.zeros(len(rows), len(weight))
    )
    with pytest.raises(AssertionError, match="columns"):
        bench_products.measure((16, 8), [2], torch.device("cpu"), torch.float32, 1, compiled=False)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sizes", "48"), "--sizes has '48'; expected OUTxIN"),
        (("--sizes", "48x0"), "expected numbers from 1 on"),
        (("--rows", "1,,2"), "--rows is '1,,2'"),
        (("--rounds", "0"), "--rounds is 0"),
        (("--out", "nowhere/products.json"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, says, capsys):
    assert script(bench_products.main, *arguments) == 2
    assert says in capsys.readouterr().err
