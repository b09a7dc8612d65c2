"""run.json: a frozen record that keeps what it does not know, and refuses damage in one line."""

import json

import pytest
from pydantic import ValidationError

from bench.common.errors import UserError
from bench.store.run_record import (
    QUESTION_FIELDS,
    Difference,
    Run,
    holds_run,
    read_run,
    through_json,
)
from tests.helpers.runs import ENVIRONMENT, make_turn, run_json

SESSION = {
    "command": ["python", "-m", "bench.run"],
    "git": {"commit": None, "dirty": None},
    "environment": ENVIRONMENT | {"workers": 1},
    "step_times": {"nodes": [1, 2], "seconds": [[0.1, 0.2]]},
    "draft_times": {"dynamic:nodes=auto": {"4": 0.01}},
    "start": "2026-01-01T00:00:00+00:00",
}
PLACES = [(choice, turn) for choice in (0, 1) for turn in (1, 2)]
FACTS = {
    "start_unix": 0.5,
    "questions": {"name": "sample", "sha256": "ab", "count": 1},
    "question_turns": {"1": 2},
    "question_texts": {"1": ("Hello?", "And now?")},
}


def begun(**config) -> Run:
    config = {"decoders": ["greedy"], "num_choices": 1, "temperature": None} | config
    return Run.begun(config, {"name": "demo", "heads": 4}, SESSION, **FACTS)


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = begun(top_p=0.9, an_option_of_tomorrow=[1, {"a": None}])
    (tmp_path / "run.json").write_text(json.dumps(run.as_json()))
    assert read_run(tmp_path) == run
    assert run.config.decoders == ["greedy"] and run.config.top_p == 0.9
    assert run.question_turns == {1: 2} and run.question_texts == {1: ["Hello?", "And now?"]}
    assert run.model.heads == 4 and run.model.identity is None
    assert run.environment.device == "a machine" and run.end is None
    written = through_json(run.as_json())
    assert list(written)[:2] == ["schema_version", "config"]
    assert written["sessions"] == [SESSION] and written["environment"] == SESSION["environment"]
    assert written["config"]["an_option_of_tomorrow"] == [1, {"a": None}]


def test_a_further_session_and_an_end_make_new_records():
    first = begun()
    later = SESSION | {"start": "2026-01-02T00:00:00+00:00"}
    second = first.resumed(first.config.as_json(), later, **FACTS)
    ended = second.ended("2026-01-02T01:00:00+00:00", peak_bytes=1024)
    assert [len(run.sessions) for run in (first, second, ended)] == [1, 2, 2]
    assert (first.end, second.end, ended.end) == (None, None, "2026-01-02T01:00:00+00:00")
    assert [session.peak_bytes for session in ended.sessions] == [None, 1024]
    assert second.sessions[1].peak_bytes is None and ended.start == first.start
    with pytest.raises(ValidationError, match="frozen"):
        first.end = "now"


def test_a_further_session_may_ask_more_questions():
    first = begun(limit=1)
    more = {"question_turns": {"1": 2, "7": 1}, "question_texts": {"1": ["Hello?"], "7": ["Bye"]}}
    facts = FACTS | more | {"start_unix": 9.0, "questions": {"name": "sample", "count": 2}}
    second = first.resumed(first.config.as_json() | {"limit": 2}, SESSION, **facts)
    assert second.config.as_json() == first.config.as_json() | {"limit": 2}
    assert second.questions.count == 2 and second.question_turns == {1: 2, 7: 1}
    assert second.question_texts == {1: ["Hello?"], 7: ["Bye"]}
    assert (second.start_unix, second.start) == (first.start_unix, first.start)


def test_differences_are_looked_for_again_after_a_further_session():
    """Those of the questions before stood in a run that asks more."""
    first = begun(limit=1).model_copy(
        update={"differences": [Difference.of((1, "dynamic", 0, 1)).model_dump()]}
    )
    second = first.resumed(first.config.as_json() | {"limit": 2}, SESSION, **FACTS)
    assert first.differences and second.differences is None


def test_an_older_run_with_unknown_fields_survives_being_resumed(tmp_path):
    """It has no question_texts, no temperature and no git, and fields that are not known here."""
    older = run_json([make_turn()], operator="me")
    del older["git"], older["config"]["temperature"]
    older["model"]["quantised"] = "4bit"
    older["environment"] = {"a": 1, "torch": "2.0"}
    older["sessions"] = [{"environment": {"a": 1}, "mood": "good"}]
    (tmp_path / "run.json").write_text(json.dumps(older))
    run = read_run(tmp_path)
    assert through_json(run.as_json()) == older
    assert run.git is None and run.config.temperature is None and run.question_texts == {}
    resumed = through_json(run.resumed(older["config"], SESSION, **FACTS).as_json())
    asked = {name: FACTS[name] for name in QUESTION_FIELDS}
    sessions = {"sessions": [*older["sessions"], SESSION], "end": None}
    assert resumed == through_json(older | asked | sessions)


def test_turns_that_a_run_does_not_ask():
    run = begun(decoders=["greedy", "small=dynamic:nodes=8"], num_choices=2)
    assert run.turns_each == 4
    asked = [(1, label, choice, turn) for label in ("greedy", "small") for choice, turn in PLACES]
    assert run.not_asked(asked) == []
    strange = [
        (2, "greedy", 0, 1),
        (1, "dynamic:nodes=8", 0, 1),
        (1, "small", 2, 1),
        (1, "small", -1, 1),
        (1, "small", 0, 3),
        (1, "small", 0, 0),
    ]
    assert run.not_asked([*strange[:3], *asked, *strange[3:]]) == strange


def test_a_folder_with_run_json_or_turns_holds_a_run(tmp_path):
    assert not holds_run(tmp_path)
    for name in ("run.json", "turns.jsonl", "turns.jsonl.gz"):
        (tmp_path / name).touch()
        assert holds_run(tmp_path) and not holds_run(tmp_path / name)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "config is None, expected an object"),
        ({"config": {"num_choices": 1}}, "it has no 'config.decoders'"),
        ({"config": {"num_choices": 1, "decoders": ["a", 2]}}, "config.decoders[1] is 2"),
        ({"config": {"num_choices": "1", "decoders": []}}, "config.num_choices is '1'"),
        ({"config": {"num_choices": 1, "decoders": [], "limit": "10"}}, "config.limit is '10'"),
        ({"model": {"name": 7}}, "model.name is 7, expected a valid string"),
        ({"questions": []}, "questions is [], expected an object"),
        ({"environment": None}, "environment is None, expected an object"),
        ({"sessions": {}}, "sessions is {}, expected a valid list"),
        ({"sessions": [{}, 3]}, "sessions[1] is 3, expected an object"),
        ({"start_unix": "0"}, "start_unix is '0', expected a valid number"),
        ({"start": None}, "start is None, expected a valid string"),
        ({"question_turns": []}, "question_turns is [], expected an object"),
        ({"question_turns": {"1": 0}}, "no numbers of turns by question_id"),
        ({"question_turns": {"01": 1}}, "question_id must be an integer, found '01'"),
        ({"question_turns": {"../x": 1}}, "question_id must be an integer, found '../x'"),
        ({"question_turns": {"9" * 30: 1}}, "question_id must be an integer, found '9999"),
        ({"question_texts": {"1": "a"}}, "no lists of texts by question_id"),
        ({"question_texts": {"1": ["a", 2]}}, "no lists of texts by question_id"),
    ],
)
def test_a_damaged_record_is_one_line(changes, message, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(run_json(**changes)))
    with pytest.raises(UserError) as caught:
        read_run(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / 'run.json'} is damaged (") and message in said
    assert said.endswith("); restore it, or give another --out") and "\n" not in said


@pytest.mark.parametrize("name", [name for name in run_json() if name not in ("git", "command")])
def test_a_field_that_is_not_there(name, tmp_path):
    fields = run_json()
    del fields[name]
    (tmp_path / "run.json").write_text(json.dumps(fields))
    if name == "end":
        assert read_run(tmp_path).end is None
    else:
        with pytest.raises(UserError, match=f"is damaged \\(it has no '{name}'\\)"):
            read_run(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is damaged"),
        ("{", "is damaged"),
        ('{"schema_version": 1}', "is damaged"),
        ('{"schema_version": 99}', "has schema version 99; this version reads 1"),
    ],
)
def test_another_content_is_refused(content, message, tmp_path):
    with pytest.raises(UserError, match="is not a run's folder: it has no run"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=message):
        read_run(tmp_path)
