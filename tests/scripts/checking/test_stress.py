"""stress_auto.py compares what it says it does. How fast anything is, no test may know."""

import json
from contextlib import nullcontext

import pytest
import stress_auto

from bench.common.errors import UserError
from checking import stress
from checking.stress import compared, faults
from tests.helpers.commands import script
from tests.helpers.runs import make_turn, turn_of

AUTO = "dynamic:nodes=auto"


def test_decoders_are_compared_with_greedy_turn_by_turn():
    turns = [
        turn_of("greedy", [7, 8, 9, 1], [1] * 4, 2.0),
        turn_of(AUTO, [7, 8, 9, 1], [3, 1], 1.0),
        turn_of("greedy", [5, 1], [1, 1], 1.0, turn=2),
        turn_of(AUTO, [5, 2], [2], 2.0, turn=2),
        turn_of("greedy", [3, 1], [1, 1], 4.0, question_id=2),
        turn_of(AUTO, [3, 1], [1, 1], 1.0, question_id=2),
    ]
    assert compared(turns, AUTO) == {
        "turns": 3,
        "ratio": 2.0,
        "later_ratio": 2.25,
        "time_ratio": 7 / 4,
        "equal": 2,
    }


def test_a_failed_turn_is_told():
    failed = make_turn(AUTO, [], 0.0, finish_reason="error", error="boom")
    with pytest.raises(UserError, match=f"'{AUTO}', question 1: boom"):
        compared([failed], AUTO)


def test_what_is_not_as_it_should_be_is_listed():
    row = {"load": "always", "decoder": AUTO, "ratio": 0.9, "later_ratio": 0.9}
    row |= {"turns": 4, "equal": 4}
    assert faults([row], least=0.9) == []
    slow, later, different = row | {"ratio": 0.89}, row | {"later_ratio": 0.8}, row | {"equal": 3}
    assert faults([slow], 0.9) == [
        f"{AUTO}, busy: always: 0.89 of greedy's speed over all turns, expected 0.9 or more"
    ]
    assert faults([later], 0.9) == [
        f"{AUTO}, busy: always: 0.80 of greedy's speed over the later half of them, expected 0.9 or"
        " more"
    ]
    assert faults([different], 0.9) == [f"{AUTO}, busy: always: 1 answers are not greedy's"]


@pytest.mark.parametrize("least", [0, 1e9])
def test_every_load_and_decoder_has_a_row(least, model, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stress, "schedule", lambda load, first_s: [])  # No loops in tests.
    out = tmp_path / "stress.json"
    arguments = ["--model", model, "--questions", questions, "--device", "cpu", "--limit", 1]
    more = ["--max-new-tokens", 6, "--load", "never,first", "--least", least]
    more += ["--decoder", f"{AUTO},short={AUTO}:depth=2"]  # By their labels.
    assert script(stress_auto.main, *arguments, *more, "--out", out) == (1 if least else 0)
    report = json.loads(out.read_text())
    rows = [(row["load"], row["decoder"], row["turns"], row["equal"]) for row in report["rows"]]
    assert rows == [(load, name, 2, 2) for load in ("never", "first") for name in (AUTO, "short")]
    said = capsys.readouterr()
    assert "later half" in said.out
    assert said.err.count("of greedy's speed over") == (8 if least else 0)


def test_loads_that_are_done_are_kept(model, questions, tmp_path, monkeypatch):
    begun = []

    def busy(phases, loops):
        begun.append(phases)
        if len(begun) == 2:
            raise UserError("stopped in the second load")
        return nullcontext()

    monkeypatch.setattr(stress, "busy", busy)
    out = tmp_path / "stress.json"
    arguments = ["--model", model, "--questions", questions, "--device", "cpu", "--limit", 1]
    more = ["--max-new-tokens", 6, "--least", 0, "--decoder", AUTO, "--out", out]
    assert script(stress_auto.main, *arguments, *more) == 2
    assert [row["load"] for row in json.loads(out.read_text())["rows"]] == ["never"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--load", "often"), "--load is 'often'; expected some of never,first,sometimes,always"),
        (("--loops", "0"), "--loops: '0' is not an integer from 1 on"),
        (("--seconds", "0"), "'0' is not a number above 0"),
        (("--least", "-1"), "--least is -1.0; expected a number from 0 on"),
        (("--decoder", "dynamc"), "Did you mean 'dynamic'"),
        (("--out", "nowhere/stress.json"), "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_checked_is_said(arguments, says, model, capsys):
    assert script(stress_auto.main, "--model", model, "--device", "cpu", *arguments) == 2
    assert says in capsys.readouterr().err
