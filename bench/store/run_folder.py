"""The folder of one run, as the run writes it.

<run>/run.json      configuration, environment, start and end; replaced atomically
<run>/turns.jsonl   one turn a line; each is appended and synced before the next one begins
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.common.files import (
    append_synced,
    checked_length,
    mend_end,
    refuse_links_in,
    sole_writer,
    write_atomically,
    writing,
)
from bench.store.run_record import RUN_FILE, Difference, Git, Run, read_run, through_json
from bench.store.turn import (
    PUBLISHED_FILE,
    TURNS_FILE,
    Key,
    Turn,
    iter_turns,
    parse_turn,
    turns_file,
)


class RunFolder:
    """The folder of one run: refuses another configuration, appends turns, knows the finished ones.

    Rows are only ever appended. A turn that failed is tried again, and the last row of a turn
    counts. For a finished turn only the byte offset of its row is kept in memory, so that memory
    does not grow with the length of the answers.

    Only one process has a folder open at a time. Nothing on disk changes before `begin`, so that a
    command that cannot start leaves a finished run as it was.
    """

    def __init__(self, path: Path, config: dict, run: Run | None) -> None:
        self.path = path
        self.run = run  # None: a new run, before `begin`.
        self.failures: dict[Key, str] = {}  # Turns whose last row is a failure, and its message.
        self._config = config
        self._offsets: dict[Key, int] = {}  # Finished turns, and where their rows begin.

    @classmethod
    @contextmanager
    def open(cls, path: Path, config: dict) -> Iterator["RunFolder"]:
        """A new run in `path`, or the one that is there if its configuration is the same.

        It may ask more questions than before: a larger limit, or none.

        UserError where another process has the folder open, where the folder holds something else
        or a symbolic link, or where its run has another configuration; the message names the
        differences.
        """
        is_new = not path.exists()
        _make_folder(path)
        refuse_links_in(path)
        try:
            with sole_writer(path / TURNS_FILE):
                yield cls._opened(path, through_json(config))
        finally:
            if is_new:
                _remove_traces(path)

    @classmethod
    def _opened(cls, path: Path, config: dict) -> "RunFolder":
        rows = turns_file(path)
        if rows.name == PUBLISHED_FILE:
            raise UserError(
                f"{path} holds a published run, whose turns are in {PUBLISHED_FILE}; give another "
                "--out"
            )
        if not (path / RUN_FILE).exists():
            return cls(path, config, run=None)
        run = read_run(path)
        if not rows.exists() or not rows.stat().st_size:
            return cls(path, config, run=None)
        before = run.config.as_json()
        if _asks_more(before, config):
            before |= {"limit": config["limit"]}
        _refuse_differences(path, "configuration", before, config)
        folder = cls(path, config, run)
        # `begin` mends a torn end and warns of it; nothing is said here.
        for offset, turn in iter_turns(rows, lambda _: None):
            folder._note(turn, offset)
        return folder

    def _note(self, turn: Turn, offset: int) -> None:
        if turn.failed:
            self.failures[turn.key] = turn.error or ""
        else:
            self.failures.pop(turn.key, None)
            self._offsets[turn.key] = offset

    def __contains__(self, key: Key) -> bool:
        """Whether this turn is finished."""
        return key in self._offsets

    def __len__(self) -> int:
        """How many turns are finished."""
        return len(self._offsets)

    def __iter__(self) -> Iterator[Key]:
        """The keys of the finished turns, in the order of their rows."""
        return iter(self._offsets)

    def turn(self, key: Key) -> Turn:
        """A finished turn, read from its row."""
        with (self.path / TURNS_FILE).open("rb") as file:
            file.seek(self._offsets[key])
            return parse_turn(file.readline())

    def begin(self, model: dict, session: dict[str, object], **facts: object) -> None:
        """Get ready to append those of the run's turns that are missing.

        `session` (command, git, environment, start, ...) is recorded for every session that has
        something to do. `facts` are of the run: its beginning, which stays as it was, and its
        questions. UserError where the folder holds turns that this run does not have, or turns of
        another model.
        """
        now = Run.begun(self._config, model, session, **facts)
        if strange := now.not_asked(self._offsets.keys() | self.failures.keys()):
            raise UserError(
                f"{self.path / TURNS_FILE} has turns that this run does not have, such as "
                f"{min(strange, key=str)}"
            )
        is_new = self.run is None
        if self.run is None:
            self.run = now
        else:
            _refuse_differences(
                self.path, "model", self.run.model.as_json(), self.run.model.comparable(now.model)
            )
            if len(self._offsets) == len(now.config.labels) * now.turns_each:
                return
            if (dtype := self.run.environment.dtype) is not None:  # It decides tokens.
                now_in = {"dtype": now.environment.dtype}
                _refuse_differences(self.path, "dtype", {"dtype": dtype}, now_in)
            self._warn_of_another_place(session)
            self._warn_of_other_code(session)
            self.run = self.run.resumed(self._config, session, **facts)
        with writing(self.path, "give another --out"):
            self._write_run()
            if is_new:
                write_atomically(self.path / TURNS_FILE, "")
            elif torn := mend_end(self.path / TURNS_FILE):
                warn(torn)

    def _warn_of_another_place(self, session: dict[str, object]) -> None:
        """Warn where this session's times cannot be compared with those of the first one."""
        before, now = self.run.environment.as_json(), through_json(session["environment"])
        if changed := list(_differences(before, now)):
            warn(f"this run was begun elsewhere ({'; '.join(changed)}); its times do not compare")

    def _warn_of_other_code(self, session: dict[str, object]) -> None:
        """Warn where this session's steps may be computed in another way than those before."""
        now = Git.model_validate(through_json(session["git"]))
        before = self.run.codes
        if before and now.commit and [now.words] != before:
            warn(
                f"this run was begun with other code ({', '.join(before)} there, {now.words} now); "
                "its numbers will pool both, and reports will say so. Give another --out to keep "
                "them apart"
            )

    def append(self, turn: Turn) -> None:
        """Put a turn on disk, whole and synced, before returning."""
        kept = "every turn before this one is kept, and the same command goes on from there"
        with writing(self.path, kept):
            self._note(turn, append_synced(self.path / TURNS_FILE, asdict(turn)))

    def end(self, now: str, peak_bytes: int | None) -> None:
        """Record that the run has ended.

        peak_bytes: the most memory that this session took. None: not known.
        """
        self._replace_run(self.run.ended(now, peak_bytes))

    def note_differences(self, differences: list[Difference]) -> None:
        """Record which turns differ from greedy's, unless that is what is recorded already."""
        if self.run.differences != differences:
            self._replace_run(self.run.model_copy(update={"differences": differences}))

    def _replace_run(self, run: Run) -> None:
        self.run = run
        with writing(self.path, "every turn is kept"):
            self._write_run()

    def _write_run(self) -> None:
        content = json.dumps(self.run.as_json(), indent=1, ensure_ascii=False)
        write_atomically(self.path / RUN_FILE, checked_length(content + "\n", RUN_FILE))


def _make_folder(path: Path) -> None:
    """Make the folder, unless it is a run's already. UserError where it holds something else."""
    is_new = not path.exists()
    try:
        if (
            not is_new
            and not (path / RUN_FILE).exists()
            and not all(map(_is_trace, path.iterdir()))
        ):
            raise UserError(f"{path} exists and is not a run's folder; give another --out")
        path.mkdir(parents=True, exist_ok=not is_new)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{path} exists and is not a run's folder; give another --out") from None
    except OSError as error:
        raise UserError(f"{path} cannot be made: {error.strerror}; give another --out") from error


def _remove_traces(folder: Path) -> None:
    """Remove the folder of a run that was refused before there was anything to write."""
    with suppress(OSError):
        traces = list(folder.iterdir())
        if all(map(_is_trace, traces)):
            for trace in traces:
                trace.unlink()
            folder.rmdir()


def _is_trace(path: Path) -> bool:
    """Whether this is a lock or a temporary file: all that a process leaves if killed early."""
    return path.name.startswith(".") and path.suffix in (".lock", ".tmp")


def _asks_more(before: dict, now: dict) -> bool:
    """Whether a configuration asks all questions of an earlier one, and then more."""
    limits = before.get("limit"), now.get("limit")
    return limits[0] is not None and (limits[1] is None or limits[1] > limits[0])


def _refuse_differences(path: Path, what: str, before: dict, now: dict) -> None:
    if differences := list(_differences(before, now)):
        raise UserError(
            f"{path} holds a run of another {what} ({'; '.join(differences)}); "
            "give another --out, or the same options to resume it"
        )


def _differences(before: dict, now: dict) -> Iterable[str]:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            yield f"{name}: {before.get(name)!r} there, {now.get(name)!r} now"
