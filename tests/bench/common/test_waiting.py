"""A line where nothing else is printed for long."""

from threading import Event

from bench.common import waiting


def test_long_silence_is_explained_and_a_short_one_is_not(capsys, monkeypatch):
    with waiting.patience("loading"):
        pass
    assert capsys.readouterr().err == ""
    said = Event()
    monkeypatch.setattr(waiting, "SILENT_S", 0.0)
    monkeypatch.setattr(
        waiting, "print", lambda *a, **k: (print(*a, **k), said.set()), raising=False
    )
    with waiting.patience("loading"):
        assert said.wait(60)
    assert capsys.readouterr().err.startswith("still loading after 0 s; Ctrl-C stops\n")
