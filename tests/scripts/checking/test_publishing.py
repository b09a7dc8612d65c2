import gzip
import json
from dataclasses import replace

import pytest

from bench.common.errors import UserError
from bench.inputs.questions import load_questions
from bench.reporting.comparison import Report
from bench.reporting.sources import open_run
from checking.publishing import publish
from tests.helpers.runs import ENVIRONMENT, TWO_DECODERS, run_json, write_run

FINISHED = [turn for turn in TWO_DECODERS if not turn.failed]
SESSION = {
    "command": [
        "bench.run",
        "--questions",
        "/home/someone/mt.jsonl",
        "--decoder",
        "greedy,dynamic",
    ],
    "git": {"commit": "abc", "dirty": False},
    "environment": ENVIRONMENT,
    "start": "2026-01-01T00:00:00+00:00",
}
TEXTS = {"1": ["a", "b"], "2": ["c"], "3": ["d"]}


@pytest.fixture
def published(tmp_path):
    run = write_run(
        tmp_path / "run", FINISHED, **SESSION, sessions=[SESSION], question_texts=TEXTS,
        questions={"name": "mt_bench"},
    )  # fmt: skip
    folder = tmp_path / "published"
    publish(run, folder)
    return run, folder


def test_a_published_run_has_the_same_numbers(published):
    run, folder = published
    ours, theirs = (Report.of([open_run(each)]).summary for each in (folder, run))
    assert ours.to_json() == theirs.to_json()
    assert (
        gzip.decompress((folder / "turns.jsonl.gz").read_bytes())
        == (run / "turns.jsonl").read_bytes()
    )


def test_it_holds_neither_the_texts_of_others_nor_names_of_folders(published):
    _, folder = published
    record = json.loads((folder / "run.json").read_text())
    assert "question_texts" not in record and record["questions"] == {"name": "mt_bench"}
    for each in (record, record["sessions"][0]):
        assert each["command"] == ["bench.run", "--questions", "mt.jsonl", *SESSION["command"][3:]]


NAMED = {
    "command": [
        "bench.run",
        "--model=/home/me/x",
        "--decoder",
        "e=eagle:path=/home/me/h.pt,greedy",
    ],
    "warnings": ["in /home/me/x/config.json is a/b, see https://example.org/a/b (/home/me)"],
}
CONFIG = run_json(FINISHED)["config"]


def test_paths_inside_texts_are_cut(tmp_path):
    session = SESSION | NAMED
    config = CONFIG | {"decoders": ["greedy", "e=eagle:path=/home/me/h.pt"]}
    run = write_run(tmp_path / "run", FINISHED, **session, sessions=[session], config=config)
    publish(run, tmp_path / "published")
    record = json.loads((tmp_path / "published" / "run.json").read_text())
    assert record["config"]["decoders"] == ["greedy", "e=eagle:path=h.pt"]
    for each in (record, record["sessions"][0]):
        assert each["command"][1:] == ["--model=x", "--decoder", "e=eagle:path=h.pt,greedy"]
        assert each["warnings"] == ["in config.json is a/b, see https://example.org/a/b (me)"]


def test_a_decoder_that_its_rows_call_by_a_path_is_refused(tmp_path):
    config = CONFIG | {"decoders": ["greedy", "eagle:path=/home/me/h.pt"]}
    run = write_run(tmp_path / "run", FINISHED, **SESSION, sessions=[SESSION], config=config)
    with pytest.raises(UserError, match=r"label \(NAME=eagle:path=/home/me/h\.pt\)"):
        publish(run, tmp_path / "published")
    assert not (tmp_path / "published").exists()


@pytest.mark.parametrize("is_ours", [True, False])
def test_our_own_questions_keep_their_texts(tmp_path, is_ours):
    """Another file may be called sample.jsonl."""
    digest = load_questions("sample").sha256 if is_ours else "0" * 64
    run = write_run(
        tmp_path / "run", FINISHED, **SESSION, sessions=[SESSION], question_texts=TEXTS,
        questions={"name": "sample", "sha256": digest},
    )  # fmt: skip
    publish(run, tmp_path / "published")
    record = json.loads((tmp_path / "published" / "run.json").read_text())
    assert record.get("question_texts") == (TEXTS if is_ours else None)


def test_failures_are_refused_unless_they_were_tried_again(tmp_path):
    turn = FINISHED[-1]
    failure = replace(turn, finish_reason="error", error="in /home/me", token_ids=[], nodes=[])
    failure = replace(failure, accept_lengths=[], text="")
    given = SESSION | {"sessions": [SESSION]}
    run = write_run(tmp_path / "failed", [*FINISHED[:-1], failure], **given)
    with pytest.raises(
        UserError, match="has failed or missing turns; the command that began it goes"
    ):
        publish(run, tmp_path / "published")
    run = write_run(tmp_path / "again", [*FINISHED[:-1], failure, turn], **given)
    publish(run, tmp_path / "published")
    rows = gzip.decompress((tmp_path / "published" / "turns.jsonl.gz").read_bytes())
    assert b"/home/me" not in rows and rows.count(b"\n") == len(FINISHED)


def test_an_older_run_without_texts_is_published(tmp_path):
    changes = SESSION | {"sessions": [SESSION], "questions": {"name": "mt_bench"}}
    run = write_run(tmp_path / "run", FINISHED, **changes)
    publish(run, tmp_path / "published")
    assert "question_texts" not in json.loads((tmp_path / "published" / "run.json").read_text())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": None}, "is not finished"),
        ({"sessions": [SESSION, SESSION | {"git": {"commit": "abc", "dirty": True}}]}, "no commit"),
        ({"sessions": [SESSION | {"git": {}}]}, "no commit"),
    ],
)
def test_a_run_that_proves_nothing_is_refused(tmp_path, changes, message):
    assert "end" in run_json()
    run = write_run(tmp_path / "run", FINISHED, **(SESSION | {"sessions": [SESSION]} | changes))
    with pytest.raises(UserError, match=message):
        publish(run, tmp_path / "published")
    assert not (tmp_path / "published").exists()
