"""kill_and_resume.py finds what it looks for. No process is started here."""

import json
from types import SimpleNamespace

import pytest

from bench.common.errors import UserError
from checking import killing


def rows(*turns: int) -> bytes:
    key = {"question_id": 1, "decoder": "d", "choice": 0}
    return "".join(json.dumps(key | {"turn": turn}) + "\n" for turn in turns).encode()


@pytest.fixture
def process(monkeypatch) -> SimpleNamespace:
    """Runs that end with these statuses, and leave these rows. None: it goes on until the kill."""
    of = SimpleNamespace(statuses=[], on_disk=[])
    monkeypatch.setattr(killing, "start", lambda flags, out: 0)
    monkeypatch.setattr(
        killing, "ended", lambda process, within_s=-1: of.statuses.pop(0) if of.statuses else 0
    )
    monkeypatch.setattr(killing, "os", SimpleNamespace(kill=lambda process, number: None))
    monkeypatch.setattr(killing, "whole_rows", lambda out: of.on_disk.pop(0))
    return of


@pytest.mark.parametrize(
    ("final", "says"),
    [(rows(2), "is lost or changed"), (rows(1, 2, 2), "a turn stands twice")],
)
def test_a_lost_and_a_repeated_row_are_found(final, says, process, tmp_path):
    process.statuses, process.on_disk = [None], [rows(1), final]
    with pytest.raises(UserError, match=says):
        killing.kill_and_resume([], tmp_path / "run", [0.1])


def test_only_kills_are_counted(process, tmp_path):
    """A start may end by itself before its instant."""
    process.statuses, process.on_disk = [None, -9, 0], [rows(1), rows(1, 2)]
    assert killing.kill_and_resume([], tmp_path / "run", [0.1, 0.2]) == [1]


def test_a_start_that_fails_by_itself_is_told(process, tmp_path):
    process.statuses = [1]
    with pytest.raises(UserError, match="the resumed run ended with status 1"):
        killing.kill_and_resume([], tmp_path / "run", [0.1])
