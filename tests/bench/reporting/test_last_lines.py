"""The lines below a run's table."""

import pytest

from bench.reporting.comparison import Report
from bench.reporting.last_lines import last_lines
from bench.reporting.page import DEMO_ANSWERS
from bench.reporting.sources import open_run
from decoders.spec import Spec
from tests.helpers.runs import ENVIRONMENT, make_turn, run_json, write_run

ON_CPU = ENVIRONMENT | {"device_type": "cpu", "threads": 3}


def lines_of(tmp_path, speeds: dict[str, float], model: str = "other") -> list[str]:
    """The last lines of a run. speeds: seconds of a turn of 8 tokens, by decoder."""
    turns = [
        make_turn(Spec.parse(spec).label, accepts, seconds, question_id=number)
        for spec, seconds in speeds.items()
        for accepts in ([1] * 8 if spec == "greedy" else [4, 4],)
        for number in (1, 2, 3)
    ]
    config = run_json(turns)["config"] | {"model": model, "decoders": list(speeds)}
    run = write_run(tmp_path / "run", turns, config=config, environment=ON_CPU)
    return last_lines(Report.of([open_run(run)]))


def test_threads_and_a_missing_baseline_are_said(tmp_path):
    threads, missing = lines_of(tmp_path, {"dynamic:nodes=8": 1.0})
    assert threads.startswith("Timed on a machine, threads: 3 ")
    assert missing.endswith("--decoder greedy,dynamic:nodes=8")


@pytest.mark.parametrize(
    ("speeds", "says"),
    [
        ({"greedy": 1.0, "dynamic": 2.0}, "--nodes auto verifies only as many as pay here"),
        ({"greedy": 1.0, "dynamic": 2.0, "small=dynamic:nodes=8": 0.5}, "small wins here: 2.00"),
        ({"greedy": 1.0, "dynamic": 2.0, "dynamic:nodes=auto": 1.0}, "steps that it saves."),
    ],
)
def test_why_trees_lose_the_clock_and_what_wins(tmp_path, speeds, says):
    _, why = lines_of(tmp_path, speeds)
    assert why.startswith("dynamic commits 4.00 times greedy's tokens a step and is slower")
    assert says in why and "\n" not in why


def test_where_trees_win_there_is_nothing_to_explain(tmp_path):
    assert len(lines_of(tmp_path, {"greedy": 1.0, "dynamic": 0.5})) == 1


@pytest.mark.parametrize(("slow", "lines"), [(1.3, 1), (2.0, 2)])
def test_a_busy_machine_is_told_by_the_spread_of_greedys_own_steps(tmp_path, slow, lines):
    seconds = [0.8, 0.8, 0.8, 0.8 * slow, 0.8 * slow]
    turns = [
        make_turn("greedy", [1] * 8, each, question_id=number)
        for number, each in enumerate(seconds)
    ]
    run = write_run(tmp_path / "run", turns, environment=ON_CPU)
    said = last_lines(Report.of([open_run(run)]))
    assert len(said) == lines
    assert lines == 1 or "steps took 100.0 ms in some answers and 200.0 ms in others" in said[1]


def test_the_demos_answers_are_said_to_be_nonsense(tmp_path):
    assert DEMO_ANSWERS in lines_of(tmp_path, {"greedy": 1.0}, model="demo")
