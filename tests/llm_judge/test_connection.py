"""The URL, the key and the proxy of an endpoint: what works, and one clear line for the rest."""

import os
import sys

import pytest

from bench.common.errors import UserError

pytest.importorskip("openai", reason="the judge needs the extra `judge`")
from llm_judge.connection import PROXIES, connect

ELSEWHERE, LOCAL = "http://judge.example/v1", "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "key")


def test_blanks_around_the_key_are_no_part_of_it(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-abc\r\n")
    assert connect(ELSEWHERE).api_key == "sk-abc"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_local_endpoint_needs_no_key(monkeypatch, host):
    monkeypatch.delenv("OPENAI_API_KEY")
    url = f"http://{host}:8000/v1"
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    for given in (url, None):
        assert str(connect(given).base_url).startswith(url)
    with pytest.raises(UserError, match="no key for"):
        connect(ELSEWHERE)


@pytest.mark.parametrize("key", ["sk-ab\rc", "sk-äbc", "sk-ab\u200bc"])
def test_a_key_that_no_header_takes_is_said_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="OPENAI_API_KEY holds characters that no key") as error:
        connect(ELSEWHERE)
    assert "sk-" not in str(error.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.300:8000/v1",
        "http://localhost:80OO/v1",
        "http://[::1:8000/v1",
        "http:///v1",
        "localhost:8000/v1",
    ],
)
def test_a_malformed_url_is_one_line(monkeypatch, url):
    with pytest.raises(UserError, match=r"--api-base is .*; expected a URL such as"):
        connect(url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(UserError, match=r"OPENAI_BASE_URL is .*; expected a URL such as"):
        connect(None)


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "socks://127.0.0.1:1", "http://x:80OO"])
def test_a_proxy_that_cannot_be_used_is_one_line(monkeypatch, name, proxy):
    monkeypatch.setitem(sys.modules, "socksio", None)  # As if it were not installed.
    monkeypatch.setenv(name, proxy)
    with pytest.raises(UserError, match=f"the proxy of {name} cannot be used"):
        connect(ELSEWHERE)
    connect(LOCAL)  # It needs no proxy.
