"""Makes the calls, several at once; each reply is on disk when it arrives.

This module needs the extra `judge`.
"""

import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed

from tqdm import tqdm

from bench.common.errors import UserError
from llm_judge.client import JudgeClient
from llm_judge.failures import GIVE_UP_AFTER, CallFailed, EndpointTrouble
from llm_judge.judging import Match
from llm_judge.ledger import Ledger


class _Progress:
    """The progress bar, with the tokens that were used and the calls that failed."""

    def __init__(self, client: JudgeClient, calls: int) -> None:
        self.client = client
        self.bar = tqdm(total=calls, unit="call", desc="judging", dynamic_ncols=True)
        self.failed: dict[str, list[Match]] = {}  # By message.
        self._troubles_in_a_row = 0

    def note(self, match: Match, call: Future[None]) -> None:
        """Count a call that has ended. UserError where the endpoint is to be given up."""
        try:
            call.result()
        except CallFailed as error:
            self.failed.setdefault(str(error), []).append(match)
            # A call that is refused for its content, such as its length, says nothing about others.
            self._troubles_in_a_row += isinstance(error, EndpointTrouble)
            if self._troubles_in_a_row >= GIVE_UP_AFTER:
                raise UserError(
                    f"{self._troubles_in_a_row} calls in a row failed, the last one with: {error}; "
                    "what arrived is kept, and the same command goes on from there"
                ) from error
        else:
            self._troubles_in_a_row = 0
        failed = sum(map(len, self.failed.values()))
        self.bar.set_postfix_str(
            f"tokens {self.client.prompt_tokens:,} in, {self.client.completion_tokens:,} out; "
            f"{failed} failed"
        )
        self.bar.update()


def make_calls(
    client: JudgeClient, ledger: Ledger, calls: list[tuple[Match, int]], parallel: int
) -> dict[str, list[Match]]:
    """Make the calls, `parallel` at once, and put the replies into the ledger.

    calls: as `Ledger.missing` returns them. Returns the match of each call that failed, by message.
    UserError where no call can succeed.
    """

    def call(match: Match, index: int) -> None:
        reply = client.ask(match.system, match.users[index])
        ledger.add(match, index, reply.text)

    progress = _Progress(client, len(calls))
    pool = ThreadPoolExecutor(parallel)
    try:
        with progress.bar:
            futures = {pool.submit(call, *each): each[0] for each in calls}
            for future in as_completed(futures):
                progress.note(futures[future], future)
    except KeyboardInterrupt:
        print(
            "\ninterrupted; taking in what is under way (Ctrl-C again: leave it)", file=sys.stderr
        )
        raise
    finally:
        client.stop.set()
        pool.shutdown(wait=True, cancel_futures=True)
        if client.prompt_tokens or client.completion_tokens:
            print(
                f"{client.prompt_tokens:,} tokens of prompts, {client.completion_tokens:,} of "
                "replies"
            )
    return progress.failed
