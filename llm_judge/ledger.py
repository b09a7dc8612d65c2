"""The judgment file of one judge, written so that no call is lost, and none is made twice.

A row is on disk before the next one begins, and one command at a time writes a file. A pairwise row
needs two calls. Until both replies are there, the first waits in `<file>.games`, so that it is not
asked for again after a crash. A judgment that is made anew is appended, and `tidy` then drops the
old one.

Rows have FastChat's fields, and two more: `prompt_sha256` (of the system prompt and the template)
and `temperature`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock

from bench.common.errors import UserError, warn
from bench.common.files import (
    append_synced,
    mend_end,
    read_lines,
    shown,
    sound_rows,
    tell_left_out,
    write_atomically,
    writing,
)
from llm_judge.judging import Match, may_be_of
from llm_judge.judgments import (
    asked,
    check_fields,
    has_verdict,
    is_empty,
    judgment_rows,
    key_of,
    models_of,
    texts,
)

_GAME = {
    "question_id": (int, str),
    "turn": int,
    "models": list,
    "judge": str,
    "user_prompt": str,
    "judgment": str,
}
# (question_id, turn, models, prompt) of one call.
Game = tuple[int | str, int, tuple[str, ...], str]


def _key(game: Game) -> tuple:
    """What a call's judgment is about; equal to `Match.key`."""
    question_id, turn, models, _ = game
    return question_id, turn, frozenset(models)


def _turn(key: tuple) -> tuple:
    """The question and turn of a `Match.key`, and the number of models."""
    question_id, turn, models = key
    return question_id, turn, len(models)


class Ledger:
    """The judgment file of one judge: finds the missing calls, and stores their replies.

    The caller of `begin` and `add` must hold the file's `sole_writer` from before the ledger is
    made. Several threads may call `add`.
    """

    def __init__(
        self,
        path: Path,
        judge: str,
        matches: list[Match],
        temperature: float | None = None,
        again: bool = False,
    ) -> None:
        """matches: all judgments that are wanted.

        temperature: the judge's. None: the endpoint's own.
        again: judgments without a verdict are wanted anew.

        A row whose reply is empty is no judgment, nor is one that FastChat recorded as failed.
        UserError where the file holds this judge's judgments of other answers, by other prompts,
        or at another temperature.
        """
        self.path, self.judge, self.matches = path, judge, matches
        self.temperature = temperature
        self.games_path = path.with_name(path.name + ".games")
        self._old: dict[int, tuple] = {}  # Line number -> key, of rows that are made anew.
        unread: dict[tuple, list[str]] = {}  # By key, the replies that `again` is about.
        wanted = {match.key: match for match in matches}
        rows: list[dict] = []  # All others of this judge.
        problems: list[str] = []
        for number, row in judgment_rows(path, problems.append) if path.exists() else ():
            key = key_of(row)
            if row["judge"][0] != judge:
                continue
            if key in wanted and (is_empty(row) or (again and not has_verdict(row))):
                self._old[number] = key
                if again:
                    unread.setdefault(key, []).extend(texts(row))
            else:
                rows.append(row)
        tell_left_out(path, problems, warn)
        self._check_same_conditions(rows, wanted)
        self._lock = Lock()
        self._done = {key_of(row): row for row in rows if key_of(row) in wanted}
        self._open = {key: match for key, match in wanted.items() if key not in self._done}
        games = dict(self._read_games()) if self.games_path.exists() else {}
        self._games = {
            game: reply for game, reply in games.items() if reply not in unread.get(_key(game), ())
        }

    def _check_same_conditions(self, rows: list[dict], wanted: dict[tuple, Match]) -> None:
        """UserError where rows are of other answers, by other prompts, or at another temperature.

        Averages are over all rows, so rows of models that are not wanted are checked, too. Warns of
        rows that do not say by which prompts they were made.
        """
        today = {match.prompt: match for match in self.matches}
        by_turn = {_turn(match.key): match for match in self.matches}
        changes = [
            (row, self._change(row, wanted.get(key), by_turn.get(_turn(key)), today))
            for row, key in ((row, key_of(row)) for row in rows)
        ]
        stale = [(row, change) for row, change in changes if change]
        if stale:
            row, change = stale[0]
            models = " and ".join(models_of(row))
            raise UserError(
                f"{self.path} has {len(stale)} judgments of other answers or with other prompts "
                f"than today's, the first of question {row['question_id']}, turn {row['turn']}, "
                f"{models} ({change}); move the file away (or rename the answer file) to judge anew"
            )
        silent = sum("prompt_sha256" not in row for row in rows)
        if silent:
            warn(
                f"{self.path}: {silent} judgments do not say their system prompt; it is taken to "
                "be today's"
            )

    def _change(
        self, row: dict, match: Match | None, like: Match | None, today: dict[str, Match]
    ) -> str:
        """How a row's prompt, answer or temperature differs from today's. Empty: it does not.

        match: of the same models. like: of the same turn, of any models. today: matches by prompt.
        """
        prompt = row["judge"][1]
        if like is not None and prompt not in (like.prompt, ""):
            return f"prompt {prompt} there, {like.prompt} now"
        if by_prompt := today.get(prompt, like):
            digest = row.get("prompt_sha256")
            # Rows of FastChat have no digest, but the whole user prompt.
            is_other = (
                not all(may_be_of(by_prompt.template, user) for user in asked(row))
                if digest is None
                else digest != by_prompt.prompt_sha256
            )
            if is_other:
                return f"another version of the prompt {by_prompt.prompt}"
        if match is not None and asked(row) != set(match.users):
            return "another answer or user prompt"
        common = like.common if like is not None else ()
        if any(text not in user for user in asked(row) for text in common):
            return "another question or reference answer"
        if row.get("temperature", self.temperature) != self.temperature:
            return f"temperature {shown(row['temperature'])} there, {self.temperature} now"
        return ""

    def _read_games(self) -> Iterator[tuple[Game, str]]:
        """(call, reply) of this judge's rows in the file of waiting replies."""
        conditions = {
            self._game(match, user): self._conditions(match)
            for match in self.matches
            for user in match.users
        }
        problems: list[str] = []
        for _, game, row in self._game_rows(problems.append):
            today = conditions.get(game, {})
            is_same = all(row.get(name, value) == value for name, value in today.items())
            if is_same and row["judgment"].strip():
                yield game, row["judgment"]
        tell_left_out(self.games_path, problems, warn)

    def _game_rows(self, bad: Callable[[str], None]) -> Iterator[tuple[int, Game, dict]]:
        """(line number, call, row) of this judge's rows in the file of waiting replies.

        bad: called with what is wrong about any other line.
        """
        for number, row in sound_rows(self.games_path, bad):
            try:
                check_fields(row, _GAME, f"{self.games_path}, line {number}")
            except UserError as error:
                bad(str(error))
                continue
            models = tuple(map(str, row["models"]))
            if row["judge"] == self.judge:
                yield number, (row["question_id"], row["turn"], models, row["user_prompt"]), row

    def missing(self) -> list[tuple[Match, int]]:
        """The calls to be made: a match, and the index of one of its prompts."""
        return [
            (match, index)
            for match in self._open.values()
            for index, user in enumerate(match.users)
            # Two equal answers make two equal prompts, which are asked once.
            if user not in match.users[:index] and self._game(match, user) not in self._games
        ]

    def begin(self) -> None:
        """Make the files ready for `add`: without a torn end."""
        with self._writing():
            for path in (self.path, self.games_path):
                if path.exists() and (torn := mend_end(path)):
                    warn(torn)
        # A command may have been killed between the second reply and the row.
        for match in list(self._open.values()):
            self._close_if_complete(match)

    def add(self, match: Match, index: int, reply: str) -> dict | None:
        """Store the reply to one prompt of a match. It is on disk before this returns.

        Returns the match's row. None: the reply to its other prompt is missing.
        """
        with self._lock, self._writing():
            game = self._game(match, match.users[index])
            self._games[game] = reply
            if len(match.users) > 1:
                append_synced(self.games_path, self._game_row(match, game, reply))
            return self._close_if_complete(match)

    def _close_if_complete(self, match: Match) -> dict | None:
        """Write the row of a match whose replies are all there. None: they are not."""
        games = [self._game(match, user) for user in match.users]
        if match.key not in self._open or not all(game in self._games for game in games):
            return None
        row = match.row(self.judge, [self._games[game] for game in games], time.time())
        row |= self._conditions(match)
        append_synced(self.path, row)
        del self._open[match.key]
        self._done[match.key] = row
        if not self._open:
            self._forget_games()
        return row

    def tidy(self) -> None:
        """Drop the rows that have been made anew. The others stay."""
        replaced = {number for number, key in self._old.items() if key in self._done}
        if not replaced:
            return
        with self._writing():
            kept = [line for number, _, line in read_lines(self.path) if number not in replaced]
            write_atomically(self.path, b"".join(kept))
        self._old = {}

    def _forget_games(self) -> None:
        """Take the replies to the wanted matches out of the file of waiting replies.

        Replies that wait for another command stay there.
        """
        if not self.games_path.exists():
            return
        wanted = {match.key for match in self.matches}
        rows = self._game_rows(lambda _: None)
        own = {number for number, game, _ in rows if _key(game) in wanted}
        kept = [line for number, _, line in read_lines(self.games_path) if number not in own]
        if kept:
            write_atomically(self.games_path, b"".join(kept))
        else:
            self.games_path.unlink()

    def rows(self) -> list[dict]:
        """The judgments of the wanted matches, as far as they exist, one for each."""
        return list(self._done.values())

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.path, "give another --data-dir, or make room")

    def _conditions(self, match: Match) -> dict[str, object]:
        """What decides a reply besides the fields of FastChat's rows."""
        return {"prompt_sha256": match.prompt_sha256, "temperature": self.temperature}

    @staticmethod
    def _game(match: Match, user: str) -> Game:
        return match.question_id, match.turn, match.models, user

    def _game_row(self, match: Match, game: Game, reply: str) -> dict:
        question_id, turn, models, user = game
        return {
            "question_id": question_id,
            "turn": turn,
            "models": list(models),
            "judge": self.judge,
            "user_prompt": user,
            "judgment": reply,
            **self._conditions(match),
        }
