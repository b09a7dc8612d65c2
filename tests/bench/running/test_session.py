"""One session of a run."""

from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from bench.running import session
from bench.running.config import RunConfig


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
