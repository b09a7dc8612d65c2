"""One session of a run."""

from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from bench.running import session
from bench.running.config import RunConfig
from tests.helpers.commands import basics, bench


@pytest.mark.parametrize(("wanted", "jobs", "made"), [(9, 2, 2), (2, 9, 2), (3, 0, 1)])
def test_there_are_no_more_workers_than_jobs(monkeypatch, wanted, jobs, made):
    """Upstream divides the questions by the workers, and fails where there are fewer questions."""
    workers = pytest.importorskip("bench.running.workers", reason="Ray is not installed")
    counts = []

    @contextmanager
    def started(_config, count, *_):
        counts.append(count)
        yield

    monkeypatch.setattr(workers, "Workers", started)
    now, prepared = datetime.now(timezone.utc), session._Prepared({}, {}, None)
    with session._crew(RunConfig(), prepared, wanted, None, jobs, now):
        pass
    assert counts == [made]


KEEPS = "recycling:nodes=4:keep=true"


def test_workers_do_not_divide_what_a_decoder_learns(model, questions, tmp_path, capsys):
    """Each had a table of its own, and accepted less than one process."""
    given = [*basics(model, questions, tmp_path / "run"), "--workers", 2, "--decoder"]
    assert bench(*given, f"greedy,{KEEPS}") == 2
    assert f"decoder {KEEPS!r} learns from each question for the next" in capsys.readouterr().err


def test_what_a_break_makes_a_decoder_forget_is_told(model, questions, tmp_path, capsys):
    given = [*basics(model, questions, tmp_path / "run"), "--decoder", f"greedy,{KEEPS}"]
    said = "has lost what it learned"
    assert bench(*given, "--limit", 2) == 0
    assert said not in capsys.readouterr().err
    assert bench(*given) == 0
    assert f"decoder {KEEPS!r} {said}" in capsys.readouterr().err
    assert bench(*given) == 0
    assert said not in capsys.readouterr().err
