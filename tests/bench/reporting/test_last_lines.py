"""The lines below a run's table."""

import pytest

from bench.reporting.comparison import Report
from bench.reporting.last_lines import ADVISED, last_lines
from bench.reporting.page import DEMO_ANSWERS
from bench.reporting.sources import open_run
from decoders import registry
from decoders.spec import Spec
from tests.helpers.runs import ENVIRONMENT, make_turn, run_json, write_run

ON_CPU = ENVIRONMENT | {"device_type": "cpu", "threads": 3}


def lines_of(
    tmp_path,
    speeds: dict[str, float],
    model: str = "other",
    questions: int = 3,
    changes: dict | None = None,
    **prefills: float,
) -> list[str]:
    """The last lines of a run.

    speeds: seconds of a turn of 8 tokens, by decoder. changes: of its run.json. prefills: seconds
    of its prefill, where not 0.25.
    """
    turns = [
        make_turn(Spec.parse(spec).label, accepts, seconds, question_id=number, prefill_s=prefill)
        for spec, seconds in speeds.items()
        for accepts in ([1] * 8 if spec == "greedy" else [4, 4],)
        for prefill in (prefills.get(spec, 0.25),)
        for number in range(1, questions + 1)
    ]
    config = run_json(turns)["config"] | {"model": model, "decoders": list(speeds)}
    facts = {"config": config, "environment": ON_CPU} | (changes or {})
    run = write_run(tmp_path / "run", turns, **facts)
    return last_lines(Report.of([open_run(run)]))


def test_threads_and_a_missing_baseline_are_said(tmp_path):
    threads, missing = lines_of(tmp_path, {"dynamic:nodes=8": 1.0})
    assert threads.startswith("Timed on a machine, threads: 3 ")
    assert missing.endswith("--decoder greedy,dynamic:nodes=8")


@pytest.mark.parametrize(
    ("speeds", "says"),
    [
        ({"dynamic": 2.0}, "save; dynamic:nodes=auto verifies only as many nodes as pay here."),
        ({"static": 3.0, "dynamic": 2.0}, "save; dynamic:nodes=auto verifies only as many"),
        ({"dynamic": 2.0, "small=dynamic:nodes=8": 0.5}, "save; small wins here: 1.67 times"),
        ({"dynamic": 2.0, "dynamic:nodes=auto": 1.0}, "save."),
        ({"recycling": 2.0}, "save."),
        ({"draft:model=x": 2.0}, "save."),
        ({"prompt-lookup": 2.0}, "save."),
    ],
)
def test_why_drafting_loses_the_clock_and_what_wins(tmp_path, speeds, says):
    _, why = lines_of(tmp_path, {"greedy": 1.0} | speeds)
    first = next(iter(speeds))
    assert why.startswith(f"{first} commits 4.00 times greedy's tokens a step and is slower")
    assert why.partition("they ")[2].startswith(says) and "\n" not in why


@pytest.mark.parametrize(
    "sessions",
    [
        [{"git": {"commit": commit * 40, "dirty": False}} for commit in "ab"],
        [{"environment": ENVIRONMENT | {"torch": version}} for version in ("2.9", "2.10")],
    ],
    ids=["other code", "another machine"],
)
def test_no_decoder_of_a_run_that_is_not_ranked_is_slower_or_wins(tmp_path, sessions):
    """Its table said "not alike", and the line below it that one decoder wins."""
    speeds = {"greedy": 1.0, "dynamic": 2.0, "small=dynamic:nodes=8": 0.5}
    assert len(lines_of(tmp_path, speeds, changes={"sessions": sessions})) == 1
    assert len(lines_of(tmp_path, speeds, changes={"sessions": sessions[:1]})) == 2


def test_nothing_is_explained_that_may_be_chance(tmp_path):
    """With one question there is no interval. Speeds of 0.99 and 1.01 are no difference."""
    assert len(lines_of(tmp_path, {"greedy": 1.0, "dynamic": 2.0}, questions=1)) == 1
    turns = [
        make_turn(decoder, accepts, seconds, question_id=number)
        for number, slow in enumerate((0.8, 1.2, 0.9, 1.3))
        for decoder, accepts, seconds in (("greedy", [1] * 8, 1.0), ("dynamic", [4, 4], slow))
    ]
    run = write_run(tmp_path / "varied", turns, environment=ON_CPU)
    assert len(last_lines(Report.of([open_run(run)]))) == 1


def test_whole_turns_are_compared_as_in_the_headline(tmp_path):
    """Decoding alone was: a decoder could lose in the table, and win below it."""
    speeds = {"greedy": 1.0, "dynamic": 1.1}
    assert len(lines_of(tmp_path, speeds, greedy=0.5, dynamic=0.1)) == 1
    assert len(lines_of(tmp_path, speeds, greedy=0.1, dynamic=0.5)) == 2


@pytest.mark.parametrize("name", ADVISED)
def test_what_is_advised_can_be_made(name):
    assert registry.make(Spec.parse(f"{name}:nodes=auto")).auto


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
