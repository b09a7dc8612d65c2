"""An HTTP client that reads a bounded number of bytes of a response, also when unzipped.

This module needs the extra `judge`.
"""

import zlib
from typing import Any

import openai

from bench.common.files import LONGEST
from llm_judge.failures import CallFailed

ACCEPTED = {"Accept-Encoding": "gzip, deflate"}  # Header of every request.
_OF_THE_BODY = ("content-encoding", "content-length", "transfer-encoding")
_ANY_ZLIB = 32 + zlib.MAX_WBITS  # gzip or deflate, whichever it is.


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
    """The body of a response. CallFailed where it is too long, or cannot be unzipped."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return content
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise CallFailed(f"the reply is compressed as {encoding[:40]!r}, which was not asked for")
    try:
        body = zlib.decompressobj(_ANY_ZLIB).decompress(content, LONGEST + 1)
    except zlib.error as error:
        raise CallFailed(f"the reply cannot be unzipped ({error})") from error
    if len(body) > LONGEST:
        raise CallFailed(f"the reply is longer than {LONGEST >> 20} MiB when it is unzipped")
    return body
