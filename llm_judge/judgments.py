"""Judgment files: read as leniently as in FastChat, and written so that no call is lost.

A row is on disk before the next one begins, and one command at a time writes a file. A pairwise row
needs two calls. Until both replies are there, the first waits in `<file>.games`, so that it is not
asked for again after a crash.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from bench.common.errors import UserError, warn
from bench.common.files import (
    append_synced,
    json_line,
    mend_end,
    read_lines,
    read_rows,
    shown,
    write_atomically,
)
from bench.store.question_id import QuestionId
from llm_judge.judging import Match

FAILED = "$ERROR$"  # The text that FastChat records for a call that failed. It is no judgment.

# The fields of rows, and their types.
_ALL = {"question_id": (int, str), "judge": list, "turn": int}
_SINGLE = {"model": str, "score": (int, float), "judgment": str}
_PAIR = {
    name: str
    for name in ("model_1", "model_2", "g1_winner", "g2_winner", "g1_judgment", "g2_judgment")
}
_GAME = {
    "question_id": (int, str),
    "turn": int,
    "models": list,
    "judge": str,
    "user_prompt": str,
    "judgment": str,
}
# (question_id, turn, models, prompt) of one call.
Game = tuple[QuestionId, int, tuple[str, ...], str]


def read_judgments(path: Path) -> list[dict]:
    """The judgments of a file. Of several rows with one key, the last one counts.

    A call that FastChat recorded as failed is left out, and so is a torn last line, with a warning.
    UserError names a line that lacks a field of its kind.
    """
    rows: dict[tuple, dict] = {}
    for number, row in read_rows(path, torn=warn):
        where = f"{path}, line {number}"
        _check(row, _ALL | (_SINGLE if "model" in row else _PAIR), where)
        if len(row["judge"]) != 2 or not all(isinstance(each, str) for each in row["judge"]):
            raise UserError(
                f"{where}: judge must be [model, prompt name], found {shown(row['judge'])}"
            )
        if FAILED not in (row.get("judgment"), row.get("g1_judgment"), row.get("g2_judgment")):
            rows[(tuple(row["judge"]), *_key(row))] = row
    return list(rows.values())


def _check(row: dict, kinds: dict[str, type | tuple], where: str) -> None:
    """UserError names the first field that is missing or of another type."""
    for name, kind in kinds.items():
        if name not in row:
            raise UserError(f"{where} is not a judgment: it has no {name!r}")
        if not isinstance(row[name], kind) or isinstance(row[name], bool):
            raise UserError(f"{where} is not a judgment: {name} is {shown(row[name])}")
        if isinstance(row[name], int) and abs(row[name]) >= 1 << 63:
            raise UserError(f"{where} is not a judgment: {name} is out of its range")


def _key(row: dict) -> tuple:
    """Equal to `Match.key` of the match that the row judges."""
    models = [row["model"]] if "model" in row else [row["model_1"], row["model_2"]]
    return row["question_id"], row["turn"], frozenset(models), row["judge"][1]


def _asked(row: dict) -> set[str]:
    """The prompts that a row says were asked."""
    names = ("user_prompt", "g1_user_prompt", "g2_user_prompt")
    return {row[name] for name in names if name in row}


class Ledger:
    """The judgment file of one judge: finds the missing calls, and stores their replies.

    The caller of `begin` and `add` must hold the file's `sole_writer` from before the ledger is
    made. Several threads may call `add`.
    """

    def __init__(self, path: Path, judge: str, matches: list[Match]) -> None:
        """matches: all judgments that are wanted.

        UserError where the file holds judgments of other answers of these models, or by other
        prompts.
        """
        self.path, self.judge, self.matches = path, judge, matches
        self.games_path = path.with_name(path.name + ".games")
        rows = read_judgments(path) if path.exists() else []
        done = {_key(row): row for row in rows if row["judge"][0] == judge}
        self._check_same_prompts(done)
        self._rows = rows
        self._lock = Lock()
        self._open = {match.key: match for match in matches if match.key not in done}
        self._games = dict(self._read_games()) if self.games_path.exists() else {}

    def _check_same_prompts(self, done: dict[tuple, dict]) -> None:
        stale = [
            match
            for match in self.matches
            if match.key in done and _asked(done[match.key]) != set(match.users)
        ]
        if stale:
            first = stale[0]
            raise UserError(
                f"{self.path} has {len(stale)} judgments of other answers or with other prompts "
                f"than today's, the first of question {first.question_id}, turn {first.turn}, "
                f"{' and '.join(first.models)}; move the file away (or rename the answer file) to "
                "judge anew"
            )

    def _read_games(self) -> Iterator[tuple[Game, str]]:
        """(call, reply) of this judge's rows in the file of waiting replies."""
        for number, row in read_rows(self.games_path, torn=warn):
            _check(row, _GAME, f"{self.games_path}, line {number}")
            if row["judge"] == self.judge:
                models = tuple(map(str, row["models"]))
                yield (row["question_id"], row["turn"], models, row["user_prompt"]), row["judgment"]

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
        """Make the files ready for `add`: drop failed rows, duplicates and a torn end."""
        with self._writing():
            for path in (self.path, self.games_path):
                if path.exists() and (torn := mend_end(path)):
                    warn(torn)
            self._tidy(self.path, self._rows)
            games = [self._game_row(game, text) for game, text in self._games.items()]
            self._tidy(self.games_path, games)
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
                append_synced(self.games_path, self._game_row(game, reply))
            return self._close_if_complete(match)

    def _close_if_complete(self, match: Match) -> dict | None:
        """Write the row of a match whose replies are all there. None: they are not."""
        games = [self._game(match, user) for user in match.users]
        if match.key not in self._open or not all(game in self._games for game in games):
            return None
        row = match.row(self.judge, [self._games[game] for game in games], time.time())
        append_synced(self.path, row)
        del self._open[match.key]
        self._rows.append(row)
        if not self._open:
            self.games_path.unlink(missing_ok=True)
        return row

    def rows(self) -> list[dict]:
        """The judgments of the wanted matches, as far as they exist."""
        keys = {match.key for match in self.matches}
        return [row for row in self._rows if row["judge"][0] == self.judge and _key(row) in keys]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an OSError into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; give another --data-dir, or "
                "make room"
            ) from error

    @staticmethod
    def _game(match: Match, user: str) -> Game:
        return match.question_id, match.turn, match.models, user

    def _game_row(self, game: Game, reply: str) -> dict:
        question_id, turn, models, user = game
        return {
            "question_id": question_id,
            "turn": turn,
            "models": list(models),
            "judge": self.judge,
            "user_prompt": user,
            "judgment": reply,
        }

    @staticmethod
    def _tidy(path: Path, rows: list[dict]) -> None:
        """Rewrite a file, unless it holds exactly these rows."""
        if path.exists() and sum(1 for _ in read_lines(path)) != len(rows):
            write_atomically(path, "".join(map(json_line, rows)))
