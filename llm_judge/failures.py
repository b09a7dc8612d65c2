"""How a call to a judge fails, and what an HTTP status means.

A failure is either one call's, as where a prompt is too long, or the endpoint's, as where the key
is wrong. A call that was answered shows that the endpoint, the key and the judge are right.
"""

import re

KEY = "OPENAI_API_KEY"  # The environment variable of the key.
LONGEST_WAIT_S = 600.0  # If a server asks for a longer wait, the call is not made again.
GIVE_UP_AFTER = 8  # Calls that the endpoint fails, or refuses, before the command ends.
# So many calls must fail before the key, the judge or a flag is blamed, and not the prompt.
REFUSED_CALLS = 2

# What messages say of a prompt that a filter refused.
_MODERATED = re.compile(
    r"moderat|flagged|content.?(?:filter|polic|management)|safety|guardrail|harmful|sensitive|"
    r"inappropriate|usage polic",
    re.IGNORECASE,
)
# What other messages say of a parameter, or of a key.
_REFUSED = re.compile(
    r"(?:un|not )support|deprecated|not permitted|not allowed|unknown|unrecogni|too large",
    re.IGNORECASE,
)
_NO_KEY = re.compile(
    r"api.?key.{0,20}(?:not valid|invalid|incorrect)|(?:invalid|incorrect).{0,10}api.?key",
    re.IGNORECASE,
)
# What they say of a prompt that is too long.
_TOO_LONG = re.compile(r"context|too (?:long|large|big)|exceed|length|tokens", re.IGNORECASE)
# Parameters that some models refuse -> the flag to give.
_INSTEAD = {
    "max_tokens": "--max-completion-tokens N instead of --max-tokens, or a smaller number",
    "temperature": "--temperature none",
}


class CallFailed(Exception):
    """One call got no reply.

    advice: the message where every call fails like this one. It is printed after the endpoint's
        URL. Empty: the failure concerns this call alone, and `calls` is not used.
    calls: how many failures end the command, as long as no call was answered. None: one is enough,
        in any case.
    """

    prompt_tokens = completion_tokens = 0  # What the call took, as far as the endpoint says.

    def __init__(self, said: str, advice: str = "", calls: int | None = None) -> None:
        super().__init__(said)
        self.advice, self.calls = advice, calls


class CutOff(CallFailed):
    """A reply was cut off at a limit of tokens. If that is so of all replies, a flag is wrong."""

    def __init__(self, finish: str) -> None:
        """finish: the finish_reason."""
        why = (
            f"(finish_reason {finish}); a larger --max-tokens or --max-completion-tokens makes room"
        )
        advice = f"cuts off one reply after another {why}"
        super().__init__(f"the reply was cut off {why}", advice, GIVE_UP_AFTER)


class EmptyReply(CallFailed):
    """A reply has no text beside its thoughts. If that is so of all replies, the judge is wrong."""

    def __init__(self, finish: str) -> None:
        """finish: the finish_reason."""
        advice = (
            f"sends one empty reply after another (finish_reason {finish}); check --judge-model, "
            "or leave room for its thoughts by a larger --max-tokens or --max-completion-tokens"
        )
        super().__init__(f"the reply is empty (finish_reason {finish})", advice, GIVE_UP_AFTER)


class EndpointTrouble(CallFailed):
    """The endpoint is busy, broken or unreachable, maybe for a while.

    The call is tried again, unless the server asks for too long a wait.
    """

    after_s: float | None = None  # The wait that the server asks for. None: it asks for none.
    most_tries: int | None = None  # Tries of a call that meet this trouble. None: all.


class TooSlow(EndpointTrouble):
    """No whole reply came in time. The endpoint may have made it nonetheless, and take money."""

    most_tries = 2

    def __init__(self, timeout_s: float) -> None:
        super().__init__(
            f"no whole reply within {timeout_s:g} s; a larger --timeout waits longer for it"
        )


class Unreachable(EndpointTrouble):
    """A host has no address, or a certificate that is not trusted. It is no matter of moments."""

    most_tries = 3

    def __init__(self, said: str) -> None:
        advice = (
            f"cannot be reached ({said}); --api-base takes the endpoint's URL, and SSL_CERT_FILE "
            "names a file of further authorities"
        )
        super().__init__(f"the endpoint cannot be reached ({said})", advice, calls=1)


class NoCompletion(EndpointTrouble):
    """What came is no chat completion at all, as from a wrong URL, or from a proxy for a moment."""

    most_tries = 3

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
        return CallFailed(said) if is_of_prompt else CallFailed(said, bad_key, REFUSED_CALLS)
    if status in (404, 405):
        advice = (
            f"does not know the judge {judge!r} ({said}); --judge-model takes a model of the "
            "endpoint, --api-base its URL up to and with /v1"
        )
        return CallFailed(said, advice, REFUSED_CALLS)
    if status in (408, 409, 429) or status >= 500:
        if after_s is not None and after_s > LONGEST_WAIT_S:
            said = f"{said}; the server asks to come back after {after_s:.0f} s"
        trouble = EndpointTrouble(said)
        trouble.after_s = after_s
        return trouble
    is_certain = code in ("unsupported_parameter", "unsupported_value")
    # An error about a prompt too long for the context may name max_tokens, too.
    is_refused = status in (400, 422) and _REFUSED.search(said) and "context" not in said
    if is_certain or is_refused:
        for name, flag in _INSTEAD.items():
            if name in said:
                calls = None if is_certain else REFUSED_CALLS
                return CallFailed(said, f"refuses {name} ({said}); give {flag}", calls)
    if status == 400 and _NO_KEY.search(f"{said} {body}"):
        return CallFailed(said, bad_key, REFUSED_CALLS)
    if status == 413 or _TOO_LONG.search(said) or _MODERATED.search(f"{said} {body}"):
        return CallFailed(said)
    advice = f"refuses one call after another ({said}); check --judge-model and --api-base"
    return CallFailed(said, advice, GIVE_UP_AFTER)
