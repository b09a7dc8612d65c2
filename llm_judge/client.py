"""One judge behind an OpenAI-compatible endpoint: a prompt in, a reply and its cost out.

tenacity makes the retries, and the client's own are switched off. Here a reply that is not JSON, or
has no list of choices, is asked for again as well. And the user can interrupt a wait.

The timeout is our own, too. The client's timeout starts again with every byte that arrives, so a
server that sends a byte now and then would never time out.
"""

import asyncio
import socket
import ssl
from collections import Counter
from email.utils import parsedate_to_datetime
from threading import Event, Lock, Thread
from time import monotonic, time

import openai
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from bench.common.errors import UserError, warn
from bench.common.strangers import cut_line
from llm_judge.connection import connect
from llm_judge.failures import (
    LONGEST_WAIT_S,
    CallFailed,
    EndpointTrouble,
    TooSlow,
    Unreachable,
    failure,
)
from llm_judge.replies import ErrorBody, Reply, read_reply
from llm_judge.request_form import Form

LONGEST_BACKOFF_S = 60.0
LONG_WAIT_S = 10.0  # Waits from this length on are told.
MOST_UNKNOWN = 3  # Unknown values of finish_reason that are told.
# Statuses that say nothing about the form of a request, so that no other form is tried.
NOT_OF_THE_FORM = (401, 403, 404, 429)


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
        """The judge `model` of an endpoint. UserError as of `connect`.

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
        self.timeout_s = timeout_s
        self.client = connect(api_base)
        self.where = str(self.client.base_url)
        self._form = Form()
        self._lock = Lock()
        self._has_answered = False
        self._failed: Counter[int] = Counter()  # Failures with advice, by their `calls`.
        # Tokens of all replies, also of those that are no judgment.
        self.prompt_tokens = self.completion_tokens = 0
        self._unknown: set[str] = set()  # Unknown values of finish_reason that were told.
        self._told_until = 0.0  # End of the last wait that was printed, on the monotonic clock.
        # An event loop can cut off a call at any moment.
        self.loop = asyncio.new_event_loop()
        Thread(target=self.loop.run_forever, daemon=True).start()

    def ask(self, system: str, user: str) -> Reply:
        """The judge's reply to a system prompt and a user prompt.

        CallFailed where there is none after all tries; UserError where no call can succeed.
        """
        met: Counter[type] = Counter()  # The kinds of trouble that the call met.
        retrying = Retrying(
            retry=retry_if_exception(_is_tried_again),
            wait=self._wait,
            stop=lambda state: self._is_last_try(state, met),
            sleep=self.stop.wait,
            reraise=True,
        )
        try:
            reply = retrying(self._ask_once, system, user)
        except CallFailed as error:
            if not error.advice or not self._is_of_every_call(error):
                raise
            self.stop.set()  # No further call is begun.
            raise UserError(f"{self.where} {error.advice}") from error
        self._has_answered = True
        return reply

    def _is_of_every_call(self, error: CallFailed) -> bool:
        """Whether every call would fail like this one, as far as is known by now."""
        with self._lock:
            if error.calls is None:
                return True
            self._failed[error.calls] += 1
            return not self._has_answered and self._failed[error.calls] >= error.calls

    def _is_last_try(self, state: RetryCallState, met: Counter[type]) -> bool:
        """Whether a call is given up after a try that failed. met: its troubles until then."""
        error = state.outcome.exception() if state.outcome else None
        most = error.most_tries if isinstance(error, EndpointTrouble) else None
        met[type(error)] += 1
        is_often = most is not None and met[type(error)] >= most
        return self.stop.is_set() or is_often or stop_after_attempt(self.tries)(state)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds until the next try: a growing random time, or longer if the server asks for it.

        Some servers that are busy ask for a wait of 0 s, or to come back at a time that is over.
        """
        error = state.outcome.exception() if state.outcome else None
        asked = error.after_s if isinstance(error, EndpointTrouble) else None
        if asked is None:
            return self.backoff(state)
        self._tell_wait(asked, error)
        return max(asked, self.backoff(state))

    def _tell_wait(self, seconds: float, error: BaseException) -> None:
        """Say so where the server asks for a long wait. Calls that wait together say it once."""
        with self._lock:
            until = monotonic() + seconds
            if seconds < LONG_WAIT_S or until < self._told_until + LONG_WAIT_S:
                return
            self._told_until = until
        warn(f"{self.where} asks to wait {seconds:.0f} s before the next try ({error})")

    def _ask_once(self, system: str, user: str) -> Reply:
        form, said = self._form, ""
        while not self.stop.is_set():
            try:
                body = self._send(form, system, user)
            except openai.APIStatusError as error:
                said = _reason(error)
                other = None if error.status_code in NOT_OF_THE_FORM else form.instead(said)
                if other is None:
                    raise self._failure(error, said) from error
                form = other
            else:
                if said:  # An earlier form was refused.
                    self._take_form(form, said)
                return self._read(body)
        raise CallFailed("interrupted")

    def _read(self, body: bytes) -> Reply:
        try:
            reply = read_reply(body)
        except ErrorBody as error:
            text = body.decode(errors="replace")
            raise failure(
                error.status, str(error), self.model, code=error.code, body=text
            ) from error
        except CallFailed as error:
            self._count(error)
            raise
        self._count(reply)
        if reply.unknown_finish:
            self._tell_unknown(reply.unknown_finish)
        return reply

    def _count(self, call: Reply | CallFailed) -> None:
        with self._lock:
            self.prompt_tokens += call.prompt_tokens
            self.completion_tokens += call.completion_tokens

    def _tell_unknown(self, finish: str) -> None:
        """Say once that a finish_reason is unknown."""
        with self._lock:
            if finish in self._unknown or len(self._unknown) >= MOST_UNKNOWN:
                return
            self._unknown.add(finish)
        warn(
            f"{self.where} ends replies with an unknown finish_reason ({finish}); they count as "
            "whole"
        )

    def _failure(self, error: openai.APIStatusError, said: str) -> CallFailed:
        return failure(
            error.status_code,
            said,
            self.model,
            code=error.code,
            body=error.response.text,
            after_s=_retry_after(error),
        )

    def _take_form(self, form: Form, said: str) -> None:
        """Write requests in another form from now on, and say so once."""
        with self._lock:
            if self._form != form:
                self._form = form
                warn(f"{self.where} refuses the usual request ({said}); it now gets {form}")

    def _send(self, form: Form, system: str, user: str) -> bytes:
        """The body of the response to one request."""
        fields = form.fields(system, user) | self.options
        create = self.client.chat.completions.with_raw_response.create
        call = asyncio.wait_for(create(model=self.model, **fields), self.timeout_s)
        try:
            done = asyncio.run_coroutine_threadsafe(call, self.loop).result()
            return done.http_response.content
        except asyncio.TimeoutError as error:
            raise TooSlow(self.timeout_s) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, CallFailed):  # `BoundedClient` refused the response.
                raise error.__cause__ from error
            said = str(error.__cause__ or error)
            # If the judge has answered before, the host is right, and the network is down for a
            # while.
            if _is_lasting(error) and not self._has_answered:
                raise Unreachable(said) from error
            raise EndpointTrouble(f"{self.where} cannot be reached ({said})") from error


def _is_lasting(error: BaseException) -> bool:
    """Whether a host has no address, no certificate that is trusted, or no TLS."""
    cause: BaseException | None = error
    while cause is not None:
        is_of_tls = isinstance(cause, ssl.SSLCertVerificationError) or type(cause) is ssl.SSLError
        if is_of_tls or isinstance(cause, socket.gaierror):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_tried_again(error: BaseException) -> bool:
    """Whether a call is made again: not where the server asks for too long a wait."""
    return isinstance(error, EndpointTrouble) and (error.after_s or 0) <= LONGEST_WAIT_S


def _reason(error: openai.APIStatusError) -> str:
    """What the endpoint says of a failed request, on one line."""
    said = cut_line(str(error.message))
    if said == f"Error code: {error.status_code}":  # It gives no reason in OpenAI's format.
        said = f"{said}, {cut_line(error.response.text, 200)}"
    return said


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
    except (ValueError, TypeError, OverflowError):
        return None
