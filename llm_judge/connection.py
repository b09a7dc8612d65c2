"""The way to an endpoint: its URL, its key, and the client that sends the requests.

This module needs the extra `judge`.
"""

import os
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

import openai

from bench.common.errors import UserError
from llm_judge.bounded_http import ACCEPTED, HTTP, BoundedClient
from llm_judge.failures import KEY

URL = "OPENAI_BASE_URL"  # The environment variable of the endpoint, where no flag names one.
LOCAL = ("localhost", "127.0.0.1", "::1")  # Hosts whose endpoints need no key and no proxy.
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")  # Variables, in lower case.


def connect(api_base: str | None) -> openai.AsyncOpenAI:
    """The client of an endpoint. None: that of $OPENAI_BASE_URL, or OpenAI's.

    The query of the URL goes with every request, as Azure's ?api-version= must.

    UserError where the URL, the key or the proxy cannot be used.
    """
    url = api_base or os.environ.get(URL, "")
    parts = _split(url, "--api-base" if api_base else URL)
    is_local = parts.hostname in LOCAL
    key = _key(url or "OpenAI's endpoint", is_local)
    query = dict(parse_qsl(parts.query))
    is_azure = "api-version" in query
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=parts._replace(query="", fragment="").geturl() or None,
        timeout=None,
        max_retries=0,
        default_query=query,
        default_headers=ACCEPTED | ({"api-key": key} if is_azure else {}),
        http_client=_http_client(is_local),
    )


def _split(url: str, name: str) -> SplitResult:
    """The parts of a URL, which may be empty. UserError where it is no http or https URL.

    name: the flag or the environment variable that holds the URL.
    """
    wrong = f"{name} is {url!r}; expected a URL such as http://localhost:8000/v1"
    try:
        HTTP.URL(url)
        parts = urlsplit(url)
    except (ValueError, HTTP.InvalidURL) as error:
        raise UserError(f"{wrong} ({error})") from error
    if url and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise UserError(wrong)
    return parts


def _key(where: str, is_local: bool) -> str:
    """The key for the endpoint `where`. UserError, which does not show it, where none is usable."""
    key = os.environ.get(KEY, "").strip()
    if not key and not is_local:
        raise UserError(
            f"no key for {where}: set {KEY} (any text where the endpoint asks for none)"
        )
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{KEY} holds characters that no key has; copy the key once more")
    return key or "none"


def _http_client(is_local: bool) -> BoundedClient:
    """The client of HTTP, with the proxy of the environment unless the endpoint is local."""
    transport = None
    if is_local:
        transport = HTTP.AsyncHTTPTransport(limits=openai.DEFAULT_CONNECTION_LIMITS)
    try:
        return BoundedClient(
            timeout=None, transport=transport, event_hooks={"request": [_drop_key_elsewhere]}
        )
    except (ImportError, ValueError, HTTP.InvalidURL) as error:
        names = [name for name in os.environ if name.lower() in PROXIES]
        raise UserError(
            f"the proxy of {' or '.join(names)} cannot be used ({error}); correct the variable, or "
            "unset it"
        ) from error


async def _drop_key_elsewhere(request: Any) -> None:
    """Leave Azure's key out of a request that was redirected to another host.

    On such a redirect, httpx removes the header Authorization and no other. Every request begins
    with that header, so a request without it was redirected.
    """
    if "Authorization" not in request.headers:
        request.headers.pop("api-key", None)
