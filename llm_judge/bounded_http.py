"""An HTTP client that reads a bounded number of bytes of a response, also when unzipped.

This module needs the extra `judge`.
"""

import gzip
import zlib
from importlib import import_module
from io import BytesIO
from typing import Any

import openai

from bench.common.files import LONGEST
from llm_judge.failures import CallFailed, EndpointTrouble

# The package that the client library speaks HTTP with: httpx, or httpx2 in later versions.
HTTP = import_module(type(openai.DEFAULT_CONNECTION_LIMITS).__module__)
ACCEPTED = {"Accept-Encoding": "gzip"}  # Header of every request.
_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")


class BoundedClient(openai.DefaultAsyncHttpxClient):
    """The library's own client, but a response is read here: at most LONGEST bytes, also unzipped.

    CallFailed where there are more.
    """

    async def send(self, request: Any, **options: Any) -> Any:
        response = await super().send(request, **options | {"stream": True})
        content = bytearray()
        try:
            async for part in response.aiter_raw():
                content += part
                if len(content) > LONGEST:
                    raise CallFailed(f"the reply is longer than {LONGEST >> 20} MiB")
        finally:
            await response.aclose()
        body = _unzipped(bytes(content), response.headers.get("content-encoding", ""))
        headers = [pair for pair in response.headers.items() if pair[0] not in _OF_THE_BODY]
        return type(response)(response.status_code, headers=headers, content=body, request=request)


def _unzipped(content: bytes, encoding: str) -> bytes:
    """The body of a response. CallFailed where it is too long, EndpointTrouble where damaged."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "x-gzip"):
        raise CallFailed(f"the reply is compressed as {encoding[:40]!r}, which was not asked for")
    try:
        with gzip.open(BytesIO(content)) as file:
            body = file.read(LONGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise EndpointTrouble(f"the reply cannot be unzipped ({error})") from error
    if len(body) > LONGEST:
        raise CallFailed(f"the reply is longer than {LONGEST >> 20} MiB when it is unzipped")
    return body
