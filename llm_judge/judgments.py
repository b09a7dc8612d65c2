"""Judgment files: read with FastChat's leniency where it matters, added to without losing or repeating a call.

A row is on disk before the next is begun. A pairwise row needs two calls; until both replies are there, the first one
waits in `<file>.games`, so that it is not asked again after a crash either.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from bench.errors import UserError
from bench.files import append_synced, json_line, read_rows, write_atomically
from llm_judge.judging import Match

# FastChat records a call that failed as this text with a score of -1; it is no judgment.
FAILED = "$ERROR$"
_KINDS = {"question_id": (int, "an integer"), "turn": (int, "an integer"), "score": ((int, float), "a grade")}


def read_judgments(path: Path) -> list[dict]:
    """The rows of a judgment file that are judgments, the last one of each key.

    UserError names the line that has not the fields of its kind.
    """
    rows: dict[tuple, dict] = {}
    for number, row in read_rows(path, torn=True):
        fields = ("model", "score", "judgment") if "model" in row else (
            "model_1", "model_2", "g1_winner", "g2_winner", "g1_judgment", "g2_judgment")  # fmt: skip
        for field in ("question_id", "judge", "turn", *fields):
            if field not in row:
                raise UserError(f"{path}, line {number} is not a judgment: it has no {field!r}")
        judge = row["judge"]
        if not isinstance(judge, list) or len(judge) != 2 or not all(isinstance(name, str) for name in judge):
            raise UserError(f"{path}, line {number}: judge must be [model, prompt name], found {judge!r:.80}")
        for field in ("question_id", "turn", *fields):
            kind, expected = _KINDS.get(field, (str, "a text"))
            if not isinstance(row[field], kind) or abs(row[field] if field == "score" else 0) > 1e6:
                raise UserError(f"{path}, line {number}: {field} is {row[field]!r:.60}; expected {expected}")
        if FAILED not in (row.get("judgment"), row.get("g1_judgment"), row.get("g2_judgment")):
            rows[(tuple(row["judge"]), *_key(row))] = row
    return list(rows.values())


def _key(row: dict) -> tuple:
    """Equal to `Match.key` of the match that the row judges."""
    models = [row["model"]] if "model" in row else [row["model_1"], row["model_2"]]
    return row["question_id"], row["turn"], frozenset(models), row["judge"][1]


def _asked(row: dict) -> set[str]:
    return {row[name] for name in ("user_prompt", "g1_user_prompt", "g2_user_prompt") if name in row}


class Ledger:
    """The judgment file of one judge: knows which calls are still to be made and takes in their replies."""

    def __init__(self, path: Path, judge: str, matches: list[Match]) -> None:
        """UserError where the file judges other answers of the same models than today's."""
        self.path, self.judge, self.matches = path, judge, matches
        self.games_path = path.with_name(path.name + ".games")
        rows = read_judgments(path) if path.exists() else []
        done = {_key(row): row for row in rows if row["judge"][0] == judge}
        stale = [match for match in matches if match.key in done and _asked(done[match.key]) != set(match.users)]
        if stale:
            first = stale[0]
            raise UserError(
                f"{path} has {len(stale)} judgments of other answers or with other prompts than today's, the first of "
                f"question {first.question_id}, turn {first.turn}, {' and '.join(first.models)}; move the file away "
                "(or rename the answer file) to judge anew"
            )
        self._rows = rows
        self._lock = Lock()
        self._open = {match.key: match for match in matches if match.key not in done}
        self._games = {
            (row["question_id"], row["turn"], tuple(row["models"]), row["user_prompt"]): row["judgment"]
            for _, row in (read_rows(self.games_path, torn=True) if self.games_path.exists() else ())
            if row["judge"] == judge
        }

    def missing(self) -> list[tuple[Match, int]]:
        """The calls to be made: a match, and which of its prompts."""
        return [
            (match, index)
            for match in self._open.values()
            for index, user in enumerate(match.users)
            # Two equal answers make equal prompts, which are asked once.
            if user not in match.users[:index] and self._game(match, user) not in self._games
        ]

    def begin(self) -> None:
        """Make the files ready to be added to: without failed rows, duplicates and a torn end."""
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._tidy(self.path, self._rows)
            self._tidy(self.games_path, [self._game_row(game, text) for game, text in self._games.items()])
        for match in list(self._open.values()):  # killed between the second reply and the row
            self._close_if_complete(match)

    def add(self, match: Match, index: int, reply: str) -> dict | None:
        """Take in a reply, on disk before returning; returns the row if the judgment is complete with it."""
        with self._lock, self._writing():
            game = self._game(match, match.users[index])
            self._games[game] = reply
            if len(match.users) > 1:
                append_synced(self.games_path, self._game_row(game, reply))
            return self._close_if_complete(match)

    def _close_if_complete(self, match: Match) -> dict | None:
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
        """The judgments of today's matches that are there."""
        keys = {match.key for match in self.matches}
        return [row for row in self._rows if row["judge"][0] == self.judge and _key(row) in keys]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; give another --data-dir, or make room"
            ) from error

    @staticmethod
    def _game(match: Match, user: str) -> tuple:
        return match.question_id, match.turn, match.models, user

    def _game_row(self, game: tuple, reply: str) -> dict:
        question_id, turn, models, user = game
        about = {"question_id": question_id, "turn": turn, "models": list(models), "judge": self.judge}
        return {**about, "user_prompt": user, "judgment": reply}

    @staticmethod
    def _tidy(path: Path, rows: list[dict]) -> None:
        """Write the file again where it holds anything but these rows; a row is appended to a whole line only."""
        content = path.read_bytes() if path.exists() else b""
        if content and (not content.endswith(b"\n") or len(content.split(b"\n")) - 1 != len(rows)):
            write_atomically(path, "".join(map(json_line, rows)))
