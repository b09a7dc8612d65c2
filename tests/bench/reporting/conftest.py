import pytest

from bench.inputs.published_sets import CACHE


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch) -> None:
    """No published set is in the cache, whatever a developer has fetched."""
    monkeypatch.setenv(CACHE, str(tmp_path_factory.mktemp("cache")))
