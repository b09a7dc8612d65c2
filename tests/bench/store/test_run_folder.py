"""A run's folder: begun, resumed, refused, and no larger in memory than it must be."""

import json
import tracemalloc
from dataclasses import asdict

import pytest

from bench.common.errors import UserError
from bench.store.run_folder import RunFolder
from bench.store.run_record import Difference, read_run
from tests.helpers.runs import ENVIRONMENT, make_turn

CONFIG = {"decoders": ("dynamic",), "num_choices": 1, "temperature": 0.0}
MODEL = {"name": "demo", "identity": "abc"}
TURNS = [make_turn(turn=number) for number in (1, 2)]
FACTS = {
    "start_unix": 0.0,
    "questions": {"name": "sample"},
    "question_turns": {"1": 2},
    "question_texts": {"1": ("Hello?", "And now?")},
}


def session(**environment) -> dict:
    return {
        "command": ["bench.run"],
        "git": {"commit": "c", "dirty": False},
        "environment": ENVIRONMENT | environment,
        "start": "2026-01-01T00:00:00+00:00",
    }


def begin(folder: RunFolder, model=MODEL, **environment) -> None:
    folder.begin(model=model, session=session(**environment), **FACTS)


def test_a_run_is_begun_interrupted_resumed_and_ended(tmp_path, capsys):
    out = tmp_path / "run"
    failed = make_turn(accepts=[], turn=2, finish_reason="error", error="boom")
    with RunFolder.open(out, CONFIG) as folder:
        assert folder.run is None and not len(folder)
        begin(folder)
        folder.append(TURNS[0])
        folder.append(failed)
    written = json.loads((out / "run.json").read_text())
    assert written["end"] is None and written["sessions"] == [session()]
    assert written["config"] == {"decoders": ["dynamic"], "num_choices": 1, "temperature": 0.0}

    with RunFolder.open(out, CONFIG) as folder:
        assert list(folder) == [TURNS[0].key] and folder.failures == {failed.key: "boom"}
        assert TURNS[0].key in folder and failed.key not in folder
        begin(folder, device="another machine")
        folder.append(TURNS[1])
        assert not folder.failures and folder.turn(TURNS[1].key) == TURNS[1]
        folder.end("2026-01-01T02:00:00+00:00", peak_bytes=5)
    assert "begun elsewhere (device: 'a machine' there" in capsys.readouterr().err
    resumed = json.loads((out / "run.json").read_text())
    second = session(device="another machine") | {"peak_bytes": 5}
    assert resumed == written | {
        "sessions": [session(), second],
        "end": "2026-01-01T02:00:00+00:00",
    }

    before = (out / "run.json").read_bytes()
    with RunFolder.open(out, CONFIG) as folder:
        begin(folder)  # Nothing is missing.
    assert (out / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "git", [{"commit": "d" * 40, "dirty": False}, {"commit": "c", "dirty": True}]
)
def test_going_on_with_other_code_is_said(git, tmp_path, capsys):
    """Steps of two versions were pooled without a word."""
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder)
        assert "other code" not in capsys.readouterr().err
        folder.begin(model=MODEL, session=session() | {"git": git}, **FACTS)
    said = capsys.readouterr().err
    assert "begun with other code (commit c there" in said and "will pool both" in said
    assert len(folder.run.codes) == 2


def test_contents_of_the_model_decide_where_a_run_records_them(tmp_path):
    """A change in the middle of a large file leaves the identity as it was."""
    contents = {name: MODEL | {"contents": name} for name in ("one", "other")}
    with RunFolder.open(tmp_path / "older", CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
    with RunFolder.open(tmp_path / "older", CONFIG) as folder:
        begin(folder, model=contents["one"])
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder, model=contents["one"])
        folder.append(TURNS[0])
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder, model=contents["one"])
        with pytest.raises(UserError, match=r"another model \(contents: 'one' there, 'other' now"):
            begin(folder, model=contents["other"])


def test_a_run_goes_on_in_its_dtype_alone(tmp_path):
    """--dtype auto is another one on another device."""
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        with pytest.raises(UserError, match=r"another dtype .*'float32' there, 'bfloat16' now"):
            begin(folder, dtype="bfloat16")
        begin(folder)
        folder.append(TURNS[1])


def test_differences_are_recorded_once(tmp_path):
    found = Difference.of(TURNS[0].key, token=3, ours=1, theirs=None, highest=[1, 2], gap=1e-6)
    assert found.is_tie
    for differences in ([found], [found], []):
        with RunFolder.open(tmp_path / "run", CONFIG) as folder:
            begin(folder)
            for turn in TURNS:
                folder.append(turn)
            before = (tmp_path / "run" / "run.json").stat().st_ino
            is_known = folder.run.differences == differences
            folder.note_differences(differences)
            assert ((tmp_path / "run" / "run.json").stat().st_ino == before) == is_known
        assert read_run(tmp_path / "run").differences == differences


def test_what_is_not_this_run_is_refused(tmp_path):
    out = tmp_path / "run"
    with RunFolder.open(out, CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
        with pytest.raises(UserError, match="is being written by process"), RunFolder.open(out, {}):
            pass
    before = (out / "run.json").read_bytes()
    another = CONFIG | {"temperature": 0.7}
    with (
        pytest.raises(UserError, match=r"another configuration \(temperature: 0.0 there, 0.7 now"),
        RunFolder.open(out, another),
    ):
        pass
    with RunFolder.open(out, CONFIG) as folder:
        with pytest.raises(UserError, match="a run of another model"):
            begin(folder, model=MODEL | {"identity": "xyz"})
        with pytest.raises(UserError, match="has turns that this run does not have, such as"):
            others = FACTS | {"question_turns": {"7": 1}}
            folder.begin(model=MODEL, session=session(), **others)
    assert (out / "run.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with (
        pytest.raises(UserError, match="is not a run's folder"),
        RunFolder.open(tmp_path / "other", CONFIG),
    ):
        pass


def test_a_limit_that_is_no_number_is_told_in_one_line(tmp_path):
    """It was compared with the new one, and ended in a traceback."""
    with RunFolder.open(tmp_path / "run", CONFIG | {"limit": 10}) as folder:
        begin(folder)
        folder.append(TURNS[0])
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace('"limit": 10', '"limit": "10"'))
    says = "config.limit is '10', expected a valid integer"
    with pytest.raises(UserError, match=says), RunFolder.open(tmp_path / "run", CONFIG):
        pass


def test_a_command_that_cannot_start_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), RunFolder.open(tmp_path / "run", CONFIG):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_torn_end_is_mended_at_begin(tmp_path, capsys):
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
    with (tmp_path / "run" / "turns.jsonl").open("a") as file:
        file.write('{"question_id": 1, ')
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[1])
    assert "was torn by a crash" in capsys.readouterr().err
    rows = (tmp_path / "run" / "turns.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == list(map(asdict, TURNS))


def test_the_memory_of_a_run_does_not_grow_with_its_answers(tmp_path):
    """A folder remembers where a turn's row begins. A turn of 500 tokens holds some 20 kB."""

    def turn(number: int):
        tokens = list(range(1000, 1500))
        fields = {"question_id": number, "token_ids": tokens, "text": "x" * 999}
        return make_turn("greedy", [1] * 500, **fields)

    with RunFolder.open(tmp_path / "run", {}) as folder:
        (tmp_path / "run" / "turns.jsonl").touch()
        for number in range(100):
            folder.append(turn(number))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100, 500):
            folder.append(turn(number))
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 400 * 600
        assert len(folder) == 500 and folder.turn((250, "greedy", 0, 1)) == turn(250)


@pytest.mark.parametrize("link", ["turns.jsonl", "run.json", "answers", ".turns.jsonl.lock"])
def test_a_folder_that_was_received_changes_nothing_outside(tmp_path, link):
    """A run's file may be a symbolic link to any file of the one who resumes it."""
    out = tmp_path / "run"
    with RunFolder.open(out, CONFIG) as folder:
        begin(folder)
        folder.append(TURNS[0])
    outside = tmp_path / "outside"
    content = (out / link).read_bytes() if link.endswith("json") else b""
    outside.mkdir() if link == "answers" else outside.write_bytes(content or b"mine")
    before = None if outside.is_dir() else outside.read_bytes()
    (out / link).unlink(missing_ok=True)
    (out / link).symlink_to(outside)
    with pytest.raises(UserError, match=f"{link} is a symbolic link"), RunFolder.open(out, CONFIG):
        pass
    assert before is None or outside.read_bytes() == before


def test_a_run_that_could_not_be_read_again_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.common.files.LONGEST", 2000)
    with RunFolder.open(tmp_path / "run", CONFIG) as folder:
        facts = FACTS | {"question_texts": {"1": ("x" * 3000,)}}
        with pytest.raises(UserError, match="could not be read again"):
            folder.begin(model=MODEL, session=session(), **facts)
    assert not (tmp_path / "run" / "turns.jsonl").exists()


def test_a_published_run_is_not_begun_anew(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "run.json").write_text("{}")
    (path / "turns.jsonl.gz").write_bytes(b"")
    with pytest.raises(UserError, match="holds a published run"), RunFolder.open(path, CONFIG):
        pass
    assert (path / "run.json").read_text() == "{}"
