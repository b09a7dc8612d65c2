"""How a call to a judge fails, and what an HTTP status means.

A failure is either one call's, as where a prompt is too long, or the endpoint's, as where the key
is wrong. A call that was answered shows that the endpoint, the key and the judge are right.
"""

import re

KEY = "OPENAI_API_KEY"  # The environment variable of the key.
LONGEST_WAIT_S = 600.0  # If a server asks for a longer wait, the call fails.
FORBIDDEN_CALLS = 2  # Prompts that are refused with status 403 before the key is blamed.

# What messages with status 403 say of a prompt that a filter refused.
_MODERATED = re.compile(
    r"moderat|flagged|content.?(?:filter|polic|management)|safety|guardrail|harmful|sensitive|"
    r"inappropriate|usage polic",
    re.IGNORECASE,
)
# Parameters that some models refuse -> the flag to give.
_INSTEAD = {
    "max_tokens": "--max-completion-tokens N instead of --max-tokens",
    "temperature": "--temperature none",
}


class CallFailed(Exception):
    """One call got no reply.

    advice: what to tell the user where every call fails so, in words that follow the endpoint's
        URL. Empty: the failure says nothing about other calls.
    calls: how many failures end the command, as long as no call was answered. None: this one ends
        it in any case. It matters only with advice.
    """

    def __init__(self, said: str, advice: str = "", calls: int | None = None) -> None:
        super().__init__(said)
        self.advice, self.calls = advice, calls


class EndpointTrouble(CallFailed):
    """The endpoint is busy, broken or unreachable, maybe for a while. The call is tried again."""

    after_s: float | None = None  # The wait that the server asks for. None: it asks for none.


class NoCompletion(EndpointTrouble):
    """What came is no chat completion at all, as from a wrong URL, or from a proxy for a moment."""

    def __init__(self, said: str) -> None:
        advice = (
            f"does not answer as an OpenAI-compatible endpoint ({said}); --api-base takes its URL "
            "up to and with /v1"
        )
        super().__init__(said, advice, calls=1)


def failure(
    status: int,
    said: str,
    judge: str,
    *,
    code: str | None = None,
    body: str = "",
    after_s: float | None = None,
) -> CallFailed:
    """What a response with an HTTP status of failure means.

    said: the reason that the endpoint gives. code: OpenAI's name for it, where there is one.
    body: all that it sent. after_s: the wait that it asks for. None: it asks for none.
    """
    bad_key = f"refuses the key ({said}); set {KEY} to one that it takes"
    if status == 401:
        return CallFailed(said, bad_key)
    if status == 402 or code == "insufficient_quota":
        advice = f"says that the account of {KEY} has no quota left ({said}); all judgments so far"
        return CallFailed(said, f"{advice} are kept")
    if status == 403:
        is_of_prompt = _MODERATED.search(f"{said} {body}")
        return CallFailed(said) if is_of_prompt else CallFailed(said, bad_key, FORBIDDEN_CALLS)
    if status == 404:
        advice = (
            f"does not know the judge {judge!r} ({said}); --judge-model takes a model of the "
            "endpoint, --api-base its URL up to and with /v1"
        )
        return CallFailed(said, advice, calls=1)
    if status in (408, 409, 429) or status >= 500:
        if after_s is not None and after_s > LONGEST_WAIT_S:
            return CallFailed(f"{said}; the server asks to come back after {after_s:.0f} s")
        trouble = EndpointTrouble(said)
        trouble.after_s = after_s
        return trouble
    if code in ("unsupported_parameter", "unsupported_value"):
        for name, flag in _INSTEAD.items():
            if name in said:
                return CallFailed(said, f"refuses {name} ({said}); give {flag}")
    return CallFailed(said)
