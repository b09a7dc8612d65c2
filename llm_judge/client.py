"""One judge behind an OpenAI-compatible endpoint: a prompt in, a reply and its cost out.

tenacity makes the retries, and the client's own are switched off. The client retries only by HTTP
status. Here a reply that is not JSON, or holds no choice, is asked for again as well. And the user
can interrupt a wait.

The timeout is our own, too. The client's timeout starts again with every byte that arrives, so a
server that sends a byte now and then would never time out.
"""

import asyncio
import os
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import Event, Thread
from time import time
from urllib.parse import urlsplit

import openai
from openai.types.chat import ChatCompletion
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from tenacity.stop import stop_when_event_set

from bench.common.errors import UserError

KEY = "OPENAI_API_KEY"  # The environment variable of the key.
URL = "OPENAI_BASE_URL"  # The environment variable of the endpoint, where no flag names one.
LOCAL = ("localhost", "127.0.0.1", "::1")  # Hosts whose endpoints need no key.
LONGEST_WAIT_S = 600.0  # If a server asks for a longer wait, the call fails.
LONGEST_BACKOFF_S = 60.0


class CallFailed(Exception):
    """One call got no reply. Other calls may still succeed."""


class EndpointTrouble(CallFailed):
    """The endpoint is busy, broken or unreachable, maybe for a while. The call is tried again."""

    def __init__(self, what: str, after_s: float | None = None) -> None:
        super().__init__(what)
        self.after_s = after_s  # The wait that the server asks for. None: it asks for none.


@dataclass(frozen=True)
class Reply:
    """The judge's reply. Token counts are 0 where the endpoint does not report them."""

    text: str
    prompt_tokens: int
    completion_tokens: int


class JudgeClient:
    """Asks one judge. Several threads may ask at once; setting `stop` ends all their waits."""

    def __init__(
        self,
        model: str,
        api_base: str | None,
        *,
        options: dict[str, object],
        timeout_s: float,
        tries: int,
        backoff_s: float,
    ) -> None:
        """The judge `model` of an endpoint. UserError where there is no key for the endpoint.

        api_base: URL of the endpoint. None: $OPENAI_BASE_URL, or OpenAI's.
        options: parameters of every request, such as temperature.
        timeout_s: the longest wait for a reply.
        backoff_s: the longest wait before the first retry. It doubles with every retry.
        """
        self.model = model
        self.options = options
        self.stop = Event()
        self.backoff = wait_random_exponential(multiplier=backoff_s, max=LONGEST_BACKOFF_S)
        self.tries = tries
        api_base = api_base or os.environ.get(URL) or None
        if api_base and urlsplit(api_base).scheme not in ("http", "https"):
            raise UserError(
                f"--api-base is {api_base!r}; expected a URL such as http://localhost:8000/v1"
            )
        key = os.environ.get(KEY)
        is_local = bool(api_base) and urlsplit(api_base).hostname in LOCAL
        if not key and not is_local:
            where = api_base or "OpenAI's endpoint"
            raise UserError(
                f"no key for {where}: set {KEY} (any text where the endpoint asks for none)"
            )
        self.timeout_s = timeout_s
        self.client = openai.AsyncOpenAI(
            api_key=key or "none", base_url=api_base, timeout=None, max_retries=0
        )
        self.where = str(self.client.base_url)
        # An event loop can cut off a call at any moment.
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, daemon=True).start()

    def ask(self, system: str, user: str) -> Reply:
        """The judge's reply to a system prompt and a user prompt.

        CallFailed where there is none after all tries; UserError where no call can succeed.
        """
        retrying = Retrying(
            retry=retry_if_exception_type(EndpointTrouble),
            wait=self._wait,
            stop=stop_after_attempt(self.tries) | stop_when_event_set(self.stop),
            sleep=self.stop.wait,
            reraise=True,
        )
        return retrying(self._ask_once, system, user)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: what the server asks for, else a growing random time."""
        error = state.outcome.exception() if state.outcome else None
        asked = error.after_s if isinstance(error, EndpointTrouble) else None
        return self.backoff(state) if asked is None else asked

    def _ask_once(self, system: str, user: str) -> Reply:
        if self.stop.is_set():
            raise CallFailed("interrupted")
        try:
            call = self.client.chat.completions.create(
                model=self.model,
                messages=[{"role": "system", "content": system}, {"role": "user", "content": user}],
                n=1,
                **self.options,
            )
            completion = asyncio.run_coroutine_threadsafe(
                asyncio.wait_for(call, self.timeout_s), self.loop
            ).result()
        except openai.APIStatusError as error:
            raise self._of_status(error) from error
        except asyncio.TimeoutError as error:
            raise EndpointTrouble(f"no whole reply within {self.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            raise EndpointTrouble(
                f"{self.where} cannot be reached ({error.__cause__ or error})"
            ) from error
        except (openai.APIResponseValidationError, ValueError) as error:
            raise EndpointTrouble(f"the reply is not JSON ({error})") from error
        return _reply(completion)

    def _of_status(self, error: openai.APIStatusError) -> Exception:
        """The error for an HTTP status: UserError, EndpointTrouble, or another CallFailed."""
        status, said = error.status_code, " ".join(str(error.message).split())[:300]
        if said == f"Error code: {status}":  # The endpoint gives no reason in OpenAI's format.
            said = f"{said}, {' '.join(error.response.text.split())[:200]}"
        if status in (401, 403):
            return UserError(
                f"{self.where} refuses the key ({said}); set {KEY} to one that it takes"
            )
        if status == 404:
            return UserError(
                f"{self.where} does not know the judge {self.model!r} ({said}); "
                "--judge-model takes a model of the endpoint, --api-base its URL up to and with /v1"
            )
        if error.code == "insufficient_quota":
            return UserError(
                f"the account of {KEY} has no quota left ({said}); every judgment so far is kept"
            )
        if status in (408, 409, 429) or status >= 500:
            after_s = _retry_after(error)
            if after_s is not None and after_s > LONGEST_WAIT_S:
                return CallFailed(f"{said}; the server asks to come back after {after_s:.0f} s")
            return EndpointTrouble(said, after_s)
        return CallFailed(said)


def _retry_after(error: openai.APIStatusError) -> float | None:
    """The wait in seconds that the server asks for, by a number or a date. None: no wait."""
    given = error.response.headers.get("retry-after")
    if given is None:
        return None
    try:
        return max(0.0, float(given))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time())
    except ValueError:
        return None


def _reply(completion: ChatCompletion) -> Reply:
    """The reply in a completion. A refusal is a reply, too. EndpointTrouble where there is none."""
    try:
        message = completion.choices[0].message
        text = message.content if message.content is not None else getattr(message, "refusal", None)
    except (AttributeError, IndexError, TypeError) as error:
        raise EndpointTrouble(
            f"the reply has no message in it ({str(completion)[:200]})"
        ) from error
    if not isinstance(text, str):
        raise EndpointTrouble(f"the reply's message has no text ({str(message)[:200]})")
    usage = completion.usage
    return Reply(
        text, getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0
    )
