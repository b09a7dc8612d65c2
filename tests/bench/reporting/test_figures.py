"""Figures: drawn where there is something to draw, and the same whenever they are drawn."""

import pytest

from bench.reporting.comparison import Report
from bench.reporting.figures import sweep
from bench.reporting.sources import open_run
from tests.helpers.runs import random_turns, write_run


@pytest.mark.parametrize(
    "decoders", [["dynamic"], ["greedy", *(f"dynamic:nodes={2**n}" for n in range(2, 8)), "static"]]
)
def test_figures_of_one_decoder_and_of_eight_with_a_category_missing(decoders, tmp_path):
    turns = random_turns(decoders, ("math", "coding"), 3, missing=[(decoders[-1], "coding")])
    run = write_run(tmp_path / "run", turns)
    made = Report.of([open_run(run)]).draw(tmp_path / "figures")
    expected = ["tokens_per_inference", "accept_lengths", "accept_length_along"]
    if len(decoders) > 1:
        expected += ["wall_clock_ratio", "acceptance_by_depth", "sweep_nodes"]
    assert sorted(figure.name for figure in made) == sorted(expected)
    for figure in made:
        assert figure.path.read_bytes().startswith(b"\x89PNG")
        assert figure.title and figure.caption.endswith(".")
        drawn = figure.path.with_suffix(".svg").read_text()
        assert drawn.startswith("<?xml") and "NaN" not in drawn


def test_the_same_numbers_draw_the_same_file(tmp_path):
    run = write_run(tmp_path / "run", random_turns(["greedy", "static", "dynamic"]))
    made = Report.of([open_run(run)])
    figures = [made.draw(tmp_path / name)[0] for name in "ab"]
    first, second = (figure.path.with_suffix(".svg").read_bytes() for figure in figures)
    assert first == second


def test_sweeps_are_found():
    options = {
        f"{topk}-{nodes}": {"decoder": "d", "nodes": nodes, "topk": topk, "temperature": None}
        for nodes in (8, 64)
        for topk in (2, 4)
    }
    auto = {"decoder": "d", "nodes": "auto", "topk": 2, "temperature": None}
    found = sweep.sweeps(options | {"x": auto})
    assert set(found) == {"nodes", "topk"}
    assert found["nodes"] == {
        "d topk=2": [(8.0, "2-8"), (64.0, "2-64")],
        "d topk=4": [(8.0, "4-8"), (64.0, "4-64")],
    }
