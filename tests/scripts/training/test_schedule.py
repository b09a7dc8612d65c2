"""The learning rate, and where a session with a time limit ends."""

from types import SimpleNamespace

import pytest

from training.schedule import Session, learning_rate


def test_the_rate_warms_up_and_falls_over_the_last_quarter():
    rates = [learning_rate(seen, total=100, warmup=10) for seen in (0, 4, 9, 75, 90, 100)]
    assert rates == pytest.approx([0.1, 0.5, 1, 1, 0.4, 0])


def test_minutes_end_a_session_by_its_own_speed(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("training.schedule.time", SimpleNamespace(monotonic=lambda: clock[0]))
    session, endless = Session(1000, 9000, minutes=2), Session(1000, 9000, None)
    clock[0] = 10.0  # 50 tokens a second.
    assert (session.last_token(1500), endless.last_token(1500)) == (7000, 9000)
    assert session.minutes_left(1500) == pytest.approx(5500 / 50 / 60)
