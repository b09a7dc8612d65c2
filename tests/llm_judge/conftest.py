import pytest

from tests.helpers.judges import Tiny


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """An empty bench "tiny", with a key for its judge."""
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return Tiny(tmp_path / "data")
