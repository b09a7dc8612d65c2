"""What is written can be read again; links are not followed."""

import pytest

from bench.common import files
from bench.common.errors import UserError
from bench.common.files import append_synced, json_line, mend_end, refuse_links_in, sole_writer
from bench.common.strict_json import parse_json


def test_a_row_that_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LONGEST", 1000)
    assert len(json_line({"text": "x" * 900})) < 1000
    path = tmp_path / "rows.jsonl"
    for text in ("x" * 1000, "é" * 500):
        with pytest.raises(UserError, match="could not be read again"):
            append_synced(path, {"text": text})
    assert not path.exists()


def test_half_a_surrogate_pair_is_written_so_that_it_can_be_read():
    line = json_line({"text": "a\ud800b"})
    assert parse_json(line.encode()) == {"text": "a?b"}


def test_links_are_not_written_through(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("mine\n")
    folder = tmp_path / "run"
    (folder / "answers").mkdir(parents=True)
    rows = folder / "rows.jsonl"
    for link in (folder / ".rows.jsonl.lock", rows, folder / "answers" / "a.jsonl"):
        link.symlink_to(secret)
        with pytest.raises(UserError, match="symbolic link"):
            refuse_links_in(folder)
        if link.parent == folder:
            with pytest.raises(UserError, match="symbolic link"), sole_writer(rows):
                append_synced(rows, {})
        link.unlink()
    rows.symlink_to(secret)
    with pytest.raises(UserError, match="symbolic link"):
        mend_end(rows)
    assert secret.read_text() == "mine\n"
