"""Endpoints that are no OpenAI: what they refuse, and whether one call or every call fails."""

import gzip
import json
import random
import socket
from contextlib import contextmanager
from email.utils import formatdate
from threading import Event

import pytest

from bench.common.errors import UserError
from llm_judge.connection import PROXIES
from llm_judge.failures import CallFailed
from llm_judge.judgments import read_judgments
from tests.helpers.judges import Judge, fails, say
from tests.helpers.loopback import server

pytest.importorskip("openai", reason="the judge needs the extra `judge`")
from llm_judge.client import JudgeClient


def sends(body, status=200, **headers):
    """A step of `Judge` that sends these bytes."""
    return lambda request: request.send(status, body, **headers)


def refuses(status, message, **error):
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return sends(body, status, Content_Type="application/json")


@contextmanager
def client(endpoint, **settings):
    """A client of an endpoint, which waits no time. Yields it and the list of its waits."""
    usual = {"options": {}, "timeout_s": 20.0, "tries": 8, "backoff_s": 1.0}
    with server(endpoint) as url:
        made = JudgeClient("j", f"{url}/v1", **usual | settings)
        waits = []
        made.stop.wait = waits.append
        yield made, waits


@pytest.fixture
def judged(bench, monkeypatch):
    """A function that has these answers judged: the command's status."""

    def judged(endpoint, answers, *flags, path=""):
        bench.questions(len(answers))
        bench.answers("m", {n: [text] for n, text in enumerate(answers, start=1)})
        with server(endpoint) as url:
            base = ["--api-base", f"{url}{path}"] if path else []
            return bench.judge(monkeypatch, url, "--tries", "8", *base, *flags)

    return judged


def scores(bench):
    return {row["question_id"]: row["score"] for row in read_judgments(bench.single)}


@pytest.mark.parametrize(
    "refusal",
    [
        refuses(403, "Your input was flagged by moderation"),
        refuses(403, "Forbidden", metadata={"reasons": ["violence"], "flagged_input": "x"}),
        refuses(400, "The response was filtered by the content policy", code="content_filter"),
        sends(b'{"error": {"message": "no", "code": 403, "metadata": {"flagged_input": "x"}}}'),
        lambda request: say(request, None, "content_filter"),
        sends(b'{"choices": [{"index": 0, "finish_reason": "content_filter: SAFETY"}]}'),
    ],
)
def test_a_prompt_that_a_filter_refuses_fails_alone(bench, judged, capsys, refusal):
    """Also where it is the first of the command."""
    judge = Judge({"<bad>": [refusal]})
    answers = ["<bad>", "<bad>", "<bad>", "fine", "fine too"]
    assert judged(judge, answers) == 1
    assert scores(bench) == {4: 5, 5: 5} and len(judge.asked) == 5
    assert "failed 3x" in capsys.readouterr().err


@pytest.mark.parametrize(
    "refusal",
    [
        refuses(404, "No endpoints found that support this prompt"),
        refuses(400, "max_tokens is too large: the context has 4096 tokens, the prompt 3000"),
        sends(b'{"choices": [], "promptFeedback": {"blockReason": "SAFETY"}}'),
    ],
)
def test_a_first_prompt_that_fails_does_not_end_the_command(bench, judged, refusal):
    judge = Judge({"<bad>": [refusal]})
    assert judged(judge, ["<bad>", "fine", "fine too"]) == 1
    assert scores(bench) == {2: 5, 3: 5} and len(judge.asked) == 3


@pytest.mark.parametrize("status", [403, 404])
def test_once_a_call_was_answered_a_refusal_is_of_one_call(bench, judged, status):
    judge = Judge({"<bad>": [refuses(status, "no")]})
    assert judged(judge, ["fine", "<bad>", "<bad>", "<bad>", "fine"]) == 1
    assert set(scores(bench)) == {1, 5}


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refuses(402, "Insufficient credits"), "has no quota left.*Insufficient credits"),
        (refuses(403, "no access"), "refuses the key"),
        (
            refuses(400, "Unsupported parameter: 'max_tokens'", code="unsupported_parameter"),
            "refuses max_tokens.*give --max-completion-tokens N",
        ),
        (
            refuses(400, "Unsupported value: 'temperature' is 0", code="unsupported_value"),
            "refuses temperature.*give --temperature none",
        ),
        (refuses(400, "`temperature` is deprecated for this model."), "give --temperature none"),
        (refuses(422, "'max_tokens' is not supported, use 'max_completion_tokens'"), "refuses max"),
        (refuses(400, "max_tokens is too large: 2048"), "or a smaller number"),
        (refuses(400, "API key not valid. Please pass a valid API key."), "refuses the key"),
        (refuses(400, "Incorrect API key provided"), "refuses the key"),
        (refuses(405, "Method Not Allowed"), "--api-base its URL up to and with /v1"),
    ],
)
def test_what_every_call_would_meet_stops_at_once(judged, refusal, said):
    judge = Judge({"answer": [refusal]})
    with pytest.raises(UserError, match=said):
        judged(judge, ["answer"] * 20)
    assert len(judge.asked) <= 2


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (refuses(400, "Model Not Exist"), r"one call after another \(.*Model Not Exist"),
        (refuses(400, "Invalid model: gpt-4"), r"check --judge-model and --api-base"),
        (fails(429, Retry_After="3600"), "8 calls in a row failed.*come back after 3600 s"),
    ],
)
def test_an_endpoint_that_refuses_all_calls_is_given_up_on(judged, refusal, said):
    judge = Judge({"answer": [refusal]})
    with pytest.raises(UserError, match=said):
        judged(judge, ["answer"] * 20)
    assert 8 <= len(judge.asked) < 20


def test_an_error_with_a_status_of_success_is_tried_again(bench, judged):
    busy = sends(b'{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}')
    judge = Judge({"answer": [busy, busy, busy, busy, "[[6]]"]})
    assert judged(judge, ["answer"]) == 0
    assert scores(bench) == {1: 6} and len(judge.asked) == 5


@pytest.mark.parametrize(
    "page",
    [
        sends(b"<!doctype html><title>Open WebUI</title>", Content_Type="text/html"),
        sends(b'{"error": "Unexpected endpoint or method."}', Content_Type="application/json"),
        sends(b'{"object": "list", "data": []}', Content_Type="application/json"),
    ],
)
def test_an_url_that_is_no_endpoint_is_said_soon(bench, judged, page):
    judge = Judge({"answer": [page]})
    with pytest.raises(UserError, match=r"does not answer as an OpenAI-compatible .*--api-base"):
        judged(judge, ["answer"] * 20)
    assert len(judge.asked) <= 3
    # Later it may be a proxy that is busy for a moment.
    judge = Judge({"<slow>": [page, page, "[[6]]"], "<broken>": [page]})
    assert judged(judge, ["fine", "<slow>", "<broken>"]) == 1
    assert scores(bench) == {1: 5, 2: 6} and len(judge.asked) == 7


def without_system(message, **error):
    """A step of an endpoint that takes no system role, and refuses it with this message."""

    def step(request):
        roles = [message["role"] for message in request.asked["messages"]]
        no = refuses(400, message, **error)
        return no(request) if "system" in roles else say(request, "[[6]]")

    return step


NO_SYSTEM = [
    ("System role not supported", {}),
    (
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        {"code": "unsupported_value"},
    ),
    ("Invalid value: 'system'. Supported values are: 'user' and 'assistant'.", {}),
    ("messages.0.role must be one of user, assistant, not system", {}),
]


def stream_alone(request):
    """A step of an endpoint that only streams."""
    if not request.asked.get("stream"):
        return refuses(400, "This model only support stream mode, please enable it")(request)
    chunks = [{"choices": [{"delta": {"content": text}}]} for text in ("Good. ", "[[6]]")]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]
    return request.send(200, "".join(lines).encode(), Content_Type="text/event-stream")


@pytest.mark.parametrize(
    ("step", "said"),
    [
        *(
            (without_system(text, **error), "the system prompt in front")
            for text, error in NO_SYSTEM
        ),
        (stream_alone, "a stream for the reply"),
    ],
)
def test_an_endpoint_gets_the_request_that_it_takes(bench, judged, capsys, step, said):
    judge = Judge({"answer": [step]})
    assert judged(judge, [f"answer {n}" for n in range(4)], "--parallel", "2") == 0
    assert set(scores(bench).values()) == {6} and len(scores(bench)) == 4
    warnings = capsys.readouterr().err
    assert warnings.count("refuses the usual request") == 1 and said in warnings
    # No word of the prompt is lost, and what was found out is kept.
    body = judge.asked[-1][1]
    assert "You grade what" in str(body["messages"]) and len(judge.asked) <= 6


def test_a_stream_that_was_not_asked_for_is_read(bench, judged):
    chunk = json.dumps({"choices": [{"delta": {"content": "[[6]]"}, "finish_reason": "stop"}]})
    sent = sends(f"data: {chunk}\n\ndata: [DONE]\n\n".encode(), Content_Type="text/event-stream")
    assert judged(Judge({"answer": [sent]}), ["answer"]) == 0
    assert scores(bench) == {1: 6}


def test_the_query_of_the_url_goes_with_every_request(bench, judged):
    """With the key in the header that Azure's older endpoints want."""
    paths = []

    def note(request):
        paths.append((request.path, request.headers.get("api-key")))
        say(request, "[[6]]")

    where = "/openai/deployments/gpt-4?api-version=2024-06-01"
    assert judged(Judge({"answer": [note]}), ["answer"], path=where) == 0
    path = "/openai/deployments/gpt-4/chat/completions?api-version=2024-06-01"
    assert paths == [(path, "key")]


def test_azures_key_is_sent_to_its_host_in_any_case(bench, monkeypatch):
    keys = []

    def note(request):
        keys.append(request.headers.get("api-key"))
        say(request, "[[6]]")

    bench.questions(1)
    bench.answers("m", {1: ["answer"]})
    with server(Judge({"answer": [note]})) as url:
        where = url.replace("127.0.0.1", "LocalHost")
        assert bench.judge(monkeypatch, url, "--api-base", f"{where}/v1?api-version=1") == 0
    assert keys == ["key"]


def test_a_local_endpoint_is_reached_without_the_proxy(bench, judged, monkeypatch):
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert judged(Judge({"answer": ["[[6]]"]}), ["answer"], "--tries", "1") == 0
    assert scores(bench) == {1: 6}


def test_a_key_is_not_sent_to_another_host_that_an_endpoint_redirects_to(bench, judged):
    """httpx keeps back the header Authorization, and not Azure's."""
    keys = []

    def note(request):
        keys.append((request.headers.get("api-key"), request.headers.get("Authorization")))
        say(request, "[[6]]")

    with server(Judge({"answer": [note]})) as other:
        elsewhere = sends(b"", 307, Location=f"{other}/v1/chat/completions")
        assert judged(Judge({"answer": [elsewhere]}), ["answer"], path="/v1?api-version=1") == 0
    assert keys == [(None, None)] and scores(bench) == {1: 6}


@pytest.mark.parametrize(
    ("body", "encoding", "said"),
    [
        (gzip.compress(b" " * (17 << 20), 1), "gzip", "longer than 16 MiB when it is unzipped"),
        (b" " * (17 << 20), "", "longer than 16 MiB"),
        (b"no gzip", "gzip", "cannot be unzipped"),
        (b"anything", "zstd", "compressed as 'zstd', which was not asked for"),
    ],
)
@pytest.mark.parametrize("status", [200, 400])
def test_a_response_takes_a_bounded_memory(bench, judged, capsys, body, encoding, said, status):
    headers = {"Content_Encoding": encoding} if encoding else {}
    step = sends(body, status, Content_Type="application/json", **headers)
    assert judged(Judge({"<big>": [step]}), ["<big>", "fine"]) == 1
    assert said in capsys.readouterr().err and scores(bench) == {2: 5}


def test_a_response_may_be_zipped(bench, judged):
    reply = {"choices": [{"message": {"content": "[[6]]"}, "finish_reason": "stop"}]}
    text = json.dumps(reply).encode()
    body = gzip.compress(text[:20]) + gzip.compress(text[20:])
    step = sends(body, Content_Type="application/json", Content_Encoding="gzip")
    damaged = sends(body[:-9], Content_Type="application/json", Content_Encoding="gzip")
    refused = sends(gzip.compress(b"<br>wait"), 503, Content_Encoding="gzip")
    judge = Judge({"answer": [refused, damaged, step]})
    assert judged(judge, ["answer"]) == 0
    assert scores(bench) == {1: 6} and len(judge.asked) == 3


def test_no_other_form_of_zipping_is_asked_for(judged):
    asked = []

    def note(request):
        asked.append(request.headers.get("Accept-Encoding"))
        say(request, "[[6]]")

    assert judged(Judge({"answer": [note]}), ["answer"]) == 0
    assert asked == ["gzip"]


@pytest.mark.parametrize("wait", ["nan", "Thu, 99 Foo 99999 99:99:99 GMT", "-5"])
def test_a_wait_that_is_none_does_not_stop_the_judge(bench, judged, wait):
    assert judged(Judge({"answer": [fails(503, Retry_After=wait), "[[6]]"]}), ["answer"]) == 0
    assert scores(bench) == {1: 6}


def test_a_long_wait_is_told(bench, judged, capsys, monkeypatch):
    monkeypatch.setattr("llm_judge.client.LONG_WAIT_S", 0.02)
    steps = [fails(429, Retry_After="0.01"), fails(429, Retry_After="0.03"), "[[6]]"]
    assert judged(Judge({"answer": steps}), ["answer"]) == 0
    said = capsys.readouterr().err
    assert said.count(" asks to wait 0 s before the next try (") == 1
    assert scores(bench) == {1: 6}


@pytest.fixture
def longest(monkeypatch):
    """Makes each random time the longest one."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)


def test_the_pauses_of_a_call_grow(longest):
    judge = Judge({"ask": [fails(500)]})
    with client(judge) as (asked, waits), pytest.raises(CallFailed):
        asked.ask("grade", "ask")
    assert waits == [1, 2, 4, 8, 16, 32, 60] and len(judge.asked) == 8


def test_a_usual_wait_for_a_rate_limit_is_kept(longest):
    steps = [fails(429, Retry_After=wait) for wait in ("20", "60", "599")]
    with client(Judge({"ask": [*steps, "[[6]]"]})) as (asked, waits):
        assert asked.ask("grade", "ask").text == "[[6]]"
    assert waits == [20, 60, 599]


@pytest.mark.parametrize("wait", ["0", "-5", "0.5", formatdate(0, usegmt=True)])
def test_a_server_cannot_switch_off_the_pauses(longest, wait):
    """Some that are busy ask to come back at once, or at a time that is over."""
    judge = Judge({"ask": [fails(429, Retry_After=wait)]})
    with client(judge) as (asked, waits), pytest.raises(CallFailed):
        asked.ask("grade", "ask")
    assert waits == [1, 2, 4, 8, 16, 32, 60]


def test_a_wait_that_is_too_long_is_not_kept():
    judge = Judge({"ask": [fails(429, Retry_After="601")]})
    with client(judge) as (asked, waits), pytest.raises(CallFailed, match="come back after 601 s"):
        asked.ask("grade", "ask")
    assert waits == [] and len(judge.asked) == 1


def test_a_slow_judge_is_asked_twice_a_call(longest):
    """Each try may cost money. Other troubles of the call do not count."""
    end = Event()

    def slow(request: object) -> None:
        asked.timeout_s = 0.2
        return fails(500)(request)

    judge = Judge({"ask": [fails(500), slow, lambda request: end.wait(20)]})
    with client(judge, timeout_s=20) as (asked, _):
        said = r"no whole reply within 0\.2 s; a larger --timeout"
        with pytest.raises(CallFailed, match=said):
            asked.ask("grade", "ask")
        end.set()
    assert len(judge.asked) == 4


@pytest.mark.parametrize("has_answered", [False, True])
def test_a_wrong_host_is_said_soon(monkeypatch, longest, has_answered):
    """Unless the judge has answered: then the network may be down for a while."""
    with client(Judge(default="[[6]]")) as (asked, waits):
        if has_answered:
            asked.ask("grade", "ask")

        def unknown(*_, **__):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        asked.client.base_url = "http://judge.example/v1"
        kind, said = (CallFailed, "") if has_answered else (UserError, "--api-base takes")
        with pytest.raises(kind, match=rf"cannot be reached \(.*not known\).*{said}"):
            asked.ask("grade", "another")
    assert len(waits) == (7 if has_answered else 2)


def test_an_endpoint_without_tls_is_said_soon(longest):
    with client(Judge()) as (asked, waits):
        asked.client.base_url = str(asked.client.base_url).replace("http:", "https:")
        with pytest.raises(UserError, match=r"cannot be reached \(.*SSL.*--api-base takes"):
            asked.ask("grade", "ask")
    assert len(waits) == 2


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            lambda request: say(request, "It is", "length"),
            r"cuts off one reply after another \(finish_reason length\); a larger --max-tokens",
        ),
        (
            lambda request: say(request, None, reasoning_content="Hm"),
            r"sends one empty reply after another.*check --judge-model, or.*--max-tokens",
        ),
    ],
)
def test_a_judge_without_any_whole_reply_is_given_up_on(bench, judged, capsys, step, said):
    """With what its replies took."""
    judge = Judge({"answer": [step]})
    with pytest.raises(UserError, match=said):
        judged(judge, ["answer"] * 20)
    assert len(judge.asked) == 8
    assert "800 tokens of prompts, 80 of replies" in capsys.readouterr().out
    # Once a reply was whole, the others are long or hard for themselves.
    judge = Judge({"answer": [step]})
    assert judged(judge, ["fine", *["answer"] * 12]) == 1
    assert len(judge.asked) == 13 and scores(bench) == {1: 5}
    assert "1,300 tokens of prompts, 130 of replies" in capsys.readouterr().out


def test_an_unknown_end_of_replies_is_told_once(bench, judged, capsys):
    judge = Judge({"answer": [lambda request: say(request, "[[6]]", "my_own")]})
    assert judged(judge, ["answer", "answer too"]) == 0
    assert capsys.readouterr().err.count("an unknown finish_reason (my_own)") == 1
    assert scores(bench) == {1: 6, 2: 6}
