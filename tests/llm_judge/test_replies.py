"""The bytes that endpoints send, sound and unsound."""

import json

import pytest

from llm_judge.failures import (
    GIVE_UP_AFTER,
    CallFailed,
    CutOff,
    EmptyReply,
    EndpointTrouble,
    NoCompletion,
)
from llm_judge.replies import ErrorBody, Reply, read_reply


def body(content="[[7]]", finish="stop", **more):
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return json.dumps({"choices": [choice], **more}).encode()


def events(*chunks, end=b"data: [DONE]\n\n"):
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks) + end


def delta(text, finish=None):
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


DEEP = "[" * 100_000 + "]" * 100_000
PARTS = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "Rating: [[3]]"}]},
    {"type": "text", "text": "Good. "},
    {"type": "text", "text": "[[7]]"},
]


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        (body(), "[[7]]"),
        (body(PARTS), "Good. [[7]]"),
        (body(finish=None), "[[7]]"),
        (body(usage=[1, 2]), "[[7]]"),
        (body(usage={"prompt_tokens": "many", "completion_tokens": [1]}), "[[7]]"),
        (body(usage={"prompt_tokens": float("nan"), "completion_tokens": 10**400}), "[[7]]"),
        (events(delta("[["), delta("7]]"), delta("", "stop")), "[[7]]"),
        (events(delta("[[7]]", "stop"), end=b""), "[[7]]"),
        (b": hello\n\n" + events({"choices": []}, delta("[[7]]")), "[[7]]"),
        (b"id: 1\n" + events(delta("[[7]]")), "[[7]]"),
        (b"retry: 3000\n\ndata: ping\n\ndata:\n\n" + events(delta("[[7]]")), "[[7]]"),
    ],
)
def test_a_reply(sent, text):
    assert read_reply(sent) == Reply(text, 0, 0)


def test_its_cost():
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    assert read_reply(body(usage=usage)) == Reply("[[7]]", 12, 3)
    assert read_reply(events(delta("[[7]]"), {"choices": [], "usage": usage})).prompt_tokens == 12


def choice(**fields):
    """A body with these fields of its choice, and no message."""
    return json.dumps({"choices": [{"index": 0, **fields}]}).encode()


@pytest.mark.parametrize(
    "reason",
    [
        *("content_filter", "content-filter", "SAFETY", "recitation", "sensitive"),
        *("prohibited_content", "refusal", "content_filtered", "guardrail_intervened"),
        *("content_filter: PROHIBITED_CONTENT", "content_filter: RECITATION"),
        "content_filter: MAX_TOKENS",  # What follows the colon does not decide.
    ],
)
def test_a_reply_that_was_withheld_fails_the_call_alone(reason):
    """Also where the half of it is there, or no message at all."""
    sent = [choice(finish_reason=reason), choice(finish_reason=reason, message=None)]
    for each in (*sent, body(finish=reason), events(delta("It is", reason))):
        with pytest.raises(CallFailed, match="the endpoint withheld the reply") as failed:
            read_reply(each)
        assert type(failed.value) is CallFailed and failed.value.advice == ""
        assert reason in str(failed.value)


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "max-tokens"),
        *("model_context_window_exceeded", "token_limit", "truncated"),
    ],
)
def test_a_reply_that_was_cut_off_is_none(reason):
    usage = {"prompt_tokens": 12, "completion_tokens": 3}
    for sent in (
        body("It is [[3", finish=reason, usage=usage),
        events(delta("It is", reason), {"choices": [], "usage": usage}),
    ):
        with pytest.raises(CutOff, match=r"cut off.*a larger --max-tokens") as failed:
            read_reply(sent)
        assert (failed.value.prompt_tokens, failed.value.completion_tokens) == (12, 3)
        assert failed.value.calls == GIVE_UP_AFTER and "--max-tokens" in failed.value.advice


@pytest.mark.parametrize(
    "sent",
    [
        *(body(text) for text in ("", [], ["[[7]]", 7, None], "<think>[[7]]")),
        events({}),
        choice(finish_reason="stop"),
    ],
)
def test_an_empty_reply_is_none(sent):
    with pytest.raises(EmptyReply, match="the reply is empty") as failed:
        read_reply(sent)
    assert failed.value.calls == GIVE_UP_AFTER and "--judge-model" in failed.value.advice


@pytest.mark.parametrize(
    "reason", ["stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "completed", ""]
)
def test_a_usual_end_of_a_reply(reason):
    assert read_reply(body(finish=reason)) == Reply("[[7]]", 0, 0)


@pytest.mark.parametrize("reason", ["tool_calls", "end_of_text", "my own"])
def test_an_unknown_end_of_a_reply_is_noted(reason):
    assert read_reply(body(finish=reason)) == Reply("[[7]]", 0, 0, unknown_finish=reason)


@pytest.mark.parametrize(
    "reason",
    [
        *("error", "abort", "cancelled", "network_error", "insufficient_system_resource"),
        *("rate_limit", "timeout", "time_limit_exceeded", "engine_overloaded"),
    ],
)
def test_a_reply_that_broke_off_is_asked_for_again(reason):
    with pytest.raises(EndpointTrouble, match="broke off") as failed:
        read_reply(body(finish=reason))
    assert type(failed.value) is EndpointTrouble


@pytest.mark.parametrize(
    "sent",
    [
        body("half \ud800 of a pair"),
        b'{"choices": [',
        f'{{"choices": {DEEP}}}'.encode(),
        events(delta("It is"), end=b""),
    ],
)
def test_what_is_damaged_is_asked_for_again(sent):
    with pytest.raises(EndpointTrouble) as failed:
        read_reply(sent)
    assert type(failed.value) is EndpointTrouble and len(str(failed.value)) < 300


@pytest.mark.parametrize(
    "sent",
    [
        b"<!doctype html><title>Open WebUI</title> [[7]]",
        DEEP.encode(),
        b"null",
        b"12",
        b"",
        b"{}",
        b'{"choices": {"0": 1}}',
        b'{"choices": [null]}',
        b'{"choices": [{"message": "[[7]]"}]}',
        b'{"error": "Unexpected endpoint or method."}',
        body().decode().encode("utf-16"),
    ],
)
def test_what_is_no_completion_is_said(sent):
    with pytest.raises(NoCompletion) as failed:
        read_reply(sent)
    assert "--api-base" in failed.value.advice and len(failed.value.advice) < 500


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "429"}, 429),
        ({"code": "rate_limit_exceeded"}, 500),
        ({"code": None}, 500),
        ({"code": 1301}, 500),
        ({}, 500),
    ],
)
def test_an_error_may_come_with_a_status_of_success(fields, status):
    error = {"message": "Provider returned error", **fields}
    for sent in (json.dumps({"error": error}).encode(), events({"error": error})):
        with pytest.raises(ErrorBody, match="Provider returned error") as found:
            read_reply(sent)
        assert found.value.status == status


def test_an_error_that_is_a_text_beside_other_fields_is_the_endpoints():
    with pytest.raises(ErrorBody, match="busy") as found:
        read_reply(b'{"error": "busy", "code": "503"}')
    assert found.value.status == 503
