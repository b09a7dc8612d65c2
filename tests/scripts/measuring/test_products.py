"""bench_products.py writes down what it says it does."""

import json

import bench_products
import pytest
import torch

from decoders.engine.graphs import Graphs
from measuring import products
from tests.helpers.commands import script


def test_products_are_timed_in_every_way_that_there_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(products, "BEYOND_CACHES", 1 << 16)
    out = tmp_path / "products.json"
    arguments = ["--sizes", "48x32,32x64", "--rows", "1,4", "--rounds", 2, "--out", out]
    assert script(bench_products.main, *arguments) == 0
    rows = json.loads(out.read_text())["rows"]
    made = [(row["out"], row["in"], row["rows"]) for row in rows if row["way"] == "columns"]
    assert made == [(48, 32, 1), (48, 32, 4), (32, 64, 1), (32, 64, 4)]
    for row in rows:
        assert row["bytes_per_s"] == pytest.approx(4 * row["out"] * row["in"] / row["seconds"])
    assert "48 x 32" in capsys.readouterr().out


def test_where_graphs_can_be_captured_they_are_replayed(captured, monkeypatch):
    """A recorder stands in for CUDA graphs. The host then launches nothing while time is taken."""
    monkeypatch.setattr(products, "BEYOND_CACHES", 1 << 10)
    monkeypatch.setattr(products, "Graphs", capturing)
    launched, timed, real = [], [], products.seconds_of

    def columns(rows, weight):
        launched.append(1)
        return rows @ weight.T

    def seconds_of(device, work):
        before = len(launched)
        timed.append(real(device, work))
        assert len(launched) == before
        return 1.0

    monkeypatch.setattr(products, "columns", columns)
    monkeypatch.setattr(products, "seconds_of", seconds_of)
    size, rounds = (16, 8), 3
    rows = products.rows_of(size, [2], torch.device("cpu"), torch.float32, rounds, False)
    copies = 1 + (1 << 10) // (4 * 16 * 8)
    assert len(timed) == rounds * len(rows) and len(launched) == 1 + 2 * copies
    assert {row["seconds"] for row in rows} == {1 / (products.REPLAYS * copies)}


def capturing(device: torch.device) -> Graphs:
    graphs = Graphs(device)
    graphs.captures = True
    return graphs


def test_the_demo_is_measured_with_its_joined_layers():
    """Queries, keys and values of the demo read the same rows."""
    assert products.demo_sizes()[0] == (512, 256)


def test_a_way_that_computes_something_else_is_not_timed(monkeypatch):
    monkeypatch.setattr(products, "BEYOND_CACHES", 1 << 10)
    zeros = lambda rows, weight: torch.zeros(len(rows), len(weight))  # noqa: E731
    monkeypatch.setattr(products, "columns", zeros)
    with pytest.raises(AssertionError, match="columns"):
        products.rows_of(
            (16, 8), [2], torch.device("cpu"), torch.float32, rounds=1, with_reduced=False
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--sizes", "48"), "--sizes has '48'; expected OUTxIN"),
        (("--sizes", "48x0"), "two numbers from 1 on"),
        (("--rows", "1,,2"), "--rows: '1,,2' is not a list of integers from 1 on"),
        (("--rounds", "0"), "--rounds: '0' is not an integer from 1 on"),
        (("--out", "nowhere/products.json"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_measured_is_said(arguments, says, capsys):
    assert script(bench_products.main, *arguments) == 2
    assert says in capsys.readouterr().err
