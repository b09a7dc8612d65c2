"""What an endpoint sends: from the bytes of a chat completion to the judge's reply.

The bytes are parsed here and not by the client library, which trusts them. They may be a web page,
a stream of events that was not asked for, or nested 100,000 deep.

Text that is empty, was cut off at a limit or was withheld by a filter makes the call fail.
"""

import re
from dataclasses import dataclass

from bench.common.files import shown
from bench.common.strangers import cut_line
from bench.common.strict_json import parse_json
from llm_judge.failures import CallFailed, CutOff, EmptyReply, EndpointTrouble, NoCompletion
from llm_judge.thinking import without_thinking

# Values of finish_reason, in lower case and with "_" for "-". Endpoints have names of their own, so
# the words in a name decide. A name with none of these words may well end a whole reply. It counts,
# as otherwise such an endpoint could not be used at all, and there is a warning.
BROKEN_OFF = re.compile(
    r"error|abort|cancel|fail|interrupt|insufficient|overload|disconnect|(?<![a-z])(?:time|rate_)"
)
WITHHELD = re.compile(
    r"filter|safety|recitation|sensitive|prohibit|refus|block(?:ed|list)|guardrail|moderat|policy|"
    r"spii"
)
CUT_OFF = re.compile(r"length|max|limit|window|exceed|truncat|incomplete")
WHOLE = (
    *("", "stop", "stop_sequence", "stop_token", "eos", "eos_token", "end", "end_turn"),
    *("complete", "completed", "done", "finished", "normal", "none", "null"),
)
# How a stream of server-sent events begins: with a field, or with a comment.
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_UNNAMED = 500  # The status of an error that names none: the endpoint's trouble.
_EXCERPT = 200  # Characters of what came that a message quotes.
_MOST_TOKENS = 1 << 53


class ErrorBody(Exception):
    """An error in OpenAI's format that came with a status of success."""

    def __init__(self, status: int, said: str, code: str | None) -> None:
        """status: of the failure that it means. code: the endpoint's name for it, if it has one."""
        super().__init__(said)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Reply:
    """The judge's reply. Token counts are 0 where the endpoint does not report them.

    unknown_finish: the finish_reason, where it may mean anything. Else empty.
    """

    text: str
    prompt_tokens: int
    completion_tokens: int
    unknown_finish: str = ""


def read_reply(body: bytes) -> Reply:
    """The reply in the body of a response.

    CallFailed where there is none, with the tokens that it took. ErrorBody where the body is an
    error.
    """
    if body.lstrip().startswith(_EVENT_STARTS):
        text, given, usage = _read_events(body)
    else:
        completion = _object(body)
        choice = _first_choice(completion)
        given, usage = choice.get("finish_reason"), completion.get("usage")
        # Endpoints leave the message out where a filter withheld it, or all went into thoughts.
        is_left_out = isinstance(given, str) and choice.get("message") is None
        text = "" if is_left_out else _text(choice.get("message"))
    finish = cut_line(given, _EXCERPT) if isinstance(given, str) else ""
    # Google's API gives its own reason as well: "content_filter: RECITATION".
    reason = finish.partition(":")[0].strip().lower().replace("-", "_")
    tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if failed := _absence(text, reason, finish):
        failed.prompt_tokens, failed.completion_tokens = tokens
        raise failed
    return Reply(text, *tokens, unknown_finish="" if reason in WHOLE else finish)


def _absence(text: str, reason: str, finish: str) -> CallFailed | None:
    """Why a text is no whole reply. None: it is one.

    reason: the finish_reason as in WHOLE. finish: as it was sent.
    """
    if reason not in WHOLE:
        if BROKEN_OFF.search(reason):
            return EndpointTrouble(f"the reply broke off (finish_reason {finish})")
        if WITHHELD.search(reason):
            return CallFailed(f"the endpoint withheld the reply (finish_reason {finish})")
        if CUT_OFF.search(reason):
            return CutOff(finish)
    if not without_thinking(text).strip():
        return EmptyReply(finish or "not given")
    return None


def _object(body: bytes) -> dict:
    """The JSON object of a body, or of an event. NoCompletion, EndpointTrouble or ErrorBody."""
    try:
        value = parse_json(body, nan=True)
    except ValueError as error:
        text = " ".join(body[:_EXCERPT].decode(errors="replace").split())
        if body.lstrip().startswith(b"{"):
            raise EndpointTrouble(f"the reply is damaged JSON: {error}") from error
        raise NoCompletion(f"the reply is not JSON: {text}") from error
    if not isinstance(value, dict):
        raise NoCompletion(f"the reply is no object of JSON but {_excerpt(value)}")
    if value.get("error"):
        raise _error(value)
    return value


def _error(value: dict) -> ErrorBody | NoCompletion:
    """What an error object means: ErrorBody, or NoCompletion where the error is a text alone."""
    error = value["error"]
    if isinstance(error, str) and len(value) == 1:
        return NoCompletion(f"the endpoint answers with an error: {_excerpt(error)}")
    about = error if isinstance(error, dict) else value
    code = about.get("code")
    status = int(code) if re.fullmatch("[45][0-9]{2}", str(code)) else _UNNAMED
    name = code if isinstance(code, str) else None
    return ErrorBody(status, _excerpt(about.get("message") or error), name)


def _first_choice(completion: dict) -> dict:
    choices = completion.get("choices")
    if choices == []:  # Some endpoints answer like this when a filter refuses the prompt.
        raise CallFailed(f"the endpoint sent no reply ({_excerpt(completion)})")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoCompletion(f"the reply has no message in it ({_excerpt(completion)})")
    return choices[0]


def _text(message: object) -> str:
    """The text of a message, or of a part of one in a stream. A refusal is a text, too.

    The content may be a list of parts, of which those of type text count.
    """
    if not isinstance(message, dict):
        raise NoCompletion(f"the reply has no message in it ({_excerpt(message)})")
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if _is_text(part)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is None:
        content = message.get("refusal")
    return content if isinstance(content, str) else ""


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and part.get("type") in ("text", "output_text")


def _read_events(body: bytes) -> tuple[str, object, object]:
    """(text, finish_reason, usage) of a stream of server-sent events.

    EndpointTrouble where the stream has no end.
    """
    texts, finish, usage, has_ended = [], None, None, False
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            has_ended = True
            break
        if not data.startswith(b"{"):  # A heartbeat, such as `data: ping`.
            continue
        chunk = _object(data)
        usage = chunk.get("usage") or usage
        if chunk.get("choices"):
            choice = _first_choice(chunk)
            texts.append(_text(choice.get("delta") or choice.get("message") or {}))
            finish = choice.get("finish_reason") or finish
    if not has_ended and finish is None:
        raise EndpointTrouble("the stream of the reply broke off")
    return "".join(texts), finish, usage


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else 0


def _excerpt(value: object) -> str:
    text = value if isinstance(value, str) else shown(value, _EXCERPT)
    return cut_line(text, _EXCERPT)
