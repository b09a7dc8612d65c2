"""What a run writes, and how it is read back.

<run>/run.json      configuration, environment, start and end; replaced atomically
<run>/turns.jsonl   one `Turn` a line, appended and synced before the next turn begins: the source of every number; of a
                    turn that failed and was tried again the last row counts
"""

import json
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import torch

from bench.common.errors import UserError, warn
from bench.common.files import (
    append_synced,
    mend_end,
    parse_json,
    read_document,
    read_lines,
    shown,
    sole_writer,
    write_atomically,
)
from bench.inputs.questions import LONGEST_CATEGORY

SCHEMA_VERSION = 1
TURNS = "turns.jsonl"
Key = tuple[int, str, int, int]


@dataclass(frozen=True)
class Turn:
    """One generated turn. A failed one has `error` and no tokens, times or text."""

    question_id: int
    category: str
    decoder: str  # its spec, such as "dynamic" or "dynamic:nodes=16"
    choice: int  # 0-based; several are several samples of the same question
    turn: int  # 1 or 2
    temperature: float
    seed: int  # of this turn, derived from the run's seed, the question, the choice and the turn
    prompt_tokens: int
    token_ids: list[int]  # committed tokens, the one that ends the answer included
    accept_lengths: list[int]  # tokens committed by each step; their sum is len(token_ids)
    nodes: list[int]  # nodes of the tree that each step verified, root included
    prefill_s: float
    decode_s: float  # from the end of the prefill to the last committed token
    finish_reason: str  # eos, stop, length, context or error
    error: str | None
    text: str
    step_ends: list[int] = field(
        default_factory=list
    )  # characters of `text` that are there after each step; older rows: none

    @property
    def key(self) -> Key:
        return self.question_id, self.decoder, self.choice, self.turn

    @property
    def failed(self) -> bool:
        return self.finish_reason == "error"


def read_turns(path: Path) -> tuple[list[Turn], list[str]]:
    """The turns of a file, the last row for each key, and a warning if its last line is torn, which is left out.

    UserError names any other line that is not a turn: it is not a crash that made it, and nothing here would mend it.
    """
    warnings: list[str] = []
    turns = (
        {turn.key: turn for _, turn in iter_turns(path, warnings.append)} if path.exists() else {}
    )
    return list(turns.values()), warnings


def iter_turns(path: Path, torn: Callable[[str], None]) -> Iterator[tuple[int, Turn]]:
    """(byte offset of its row, turn) one by one, as `read_turns` reads them; `torn` is told of a torn last line."""
    for number, offset, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            turn = _turn(parse_json(line, nan=True))  # a time may be NaN, which a report says
        except (ValueError, KeyError, TypeError) as error:
            if not line.endswith(b"\n"):  # a whole row is followed by a newline
                torn(f"{where} is torn and left out")
                return
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"{where} is not a turn of this version ({what}); repair or remove the line"
            ) from error
        yield offset, turn


_KINDS = {
    int: {int},
    list[int]: {int},
    str: {str},
    float: {int, float},
    str | None: {str, type(None)},
}


def _turn(row: object) -> Turn:
    """A turn from a row; KeyError, TypeError or ValueError where a field is missing or not what it must be."""
    if not isinstance(row, dict):
        raise TypeError(f"expected an object, found {type(row).__name__}")
    row = {"step_ends": []} | row
    for each in fields(Turn):
        value = row[each.name]
        members = value if each.type == list[int] else [value]
        if not isinstance(members, list) or not set(map(type, members)) <= _KINDS[each.type]:
            raise TypeError(f"{each.name} is {str(value)[:40]!r}, expected {each.type}")
        if (
            members
            and each.type in (int, float, list[int])
            and max(max(members), -min(members)) >= 1 << 63
        ):
            raise ValueError(f"{each.name} is out of its range")
    turn = Turn(**{each.name: row[each.name] for each in fields(Turn)})
    lengths = turn.accept_lengths
    if (
        sum(lengths) != len(turn.token_ids)
        or len(turn.nodes) != len(lengths)
        or min(lengths, default=1) < 1
    ):
        raise ValueError("accept_lengths do not add up to the tokens")
    if turn.step_ends and len(turn.step_ends) != len(lengths):
        raise ValueError("step_ends are not one for each step")
    if not 0 < len(turn.category) <= LONGEST_CATEGORY:
        raise ValueError(f"category has {len(turn.category)} characters")
    if min(turn.prefill_s, turn.decode_s) < 0:
        raise ValueError("a time is below 0")
    if not 0 < min(turn.nodes, default=1) <= max(turn.nodes, default=1) < 1 << 31:
        raise ValueError("nodes is out of its range")
    return turn


class RunFolder:
    """The folder of one run: refuses another configuration, appends turns, knows what is done.

    Rows are only ever appended; a turn that failed is tried again, and the last row of a turn is the one that counts. Of
    what is done the folder remembers where it stands, not what it says, so that its size does not grow with the run.

    Only one process has it open at a time. Nothing of a run is changed before `begin`, so that one which cannot start
    leaves a finished one as it was.
    """

    def __init__(self, path: Path, run: dict, resumed: bool) -> None:
        self.path = path
        self.run = run
        self.resumed = resumed
        self.failures: dict[Key, str] = {}  # turns whose last row is a failure, and what it says
        self._rows: dict[Key, int] = {}  # finished turns, and where their rows begin

    @classmethod
    @contextmanager
    def open(cls, path: Path, config: dict) -> Iterator["RunFolder"]:
        """A new run in `path`, or the one that is there if its configuration is the same.

        UserError where another process has it open, or where the folder holds something else, with the differences.
        """
        config = json.loads(json.dumps(config))  # as it will be read back
        is_new = not path.exists()
        try:
            if (
                not (path / "run.json").exists()
                and path.exists()
                and any(not _is_trace(each) for each in path.iterdir())
            ):
                raise UserError(f"{path} exists and is not a run's folder; give another --out")
            path.mkdir(parents=True, exist_ok=not is_new)
        except (FileExistsError, NotADirectoryError):
            raise UserError(
                f"{path} exists and is not a run's folder; give another --out"
            ) from None
        except OSError as error:
            raise UserError(
                f"{path} cannot be made: {error.strerror}; give another --out"
            ) from error
        try:
            with sole_writer(path / TURNS):
                yield cls._opened(path, config)
        finally:
            if is_new:
                _remove_traces(path)

    @classmethod
    def _opened(cls, path: Path, config: dict) -> "RunFolder":
        turns_file = path / TURNS
        if not (path / "run.json").exists():
            return cls(path, {"schema_version": SCHEMA_VERSION, "config": config}, resumed=False)
        run = read_run(path)
        if not turns_file.exists() or not turns_file.stat().st_size:
            return cls(path, {"schema_version": SCHEMA_VERSION, "config": config}, resumed=False)
        _refuse_differences(path, "configuration", run["config"], config)
        folder = cls(path, run, resumed=True)
        for offset, turn in iter_turns(
            turns_file, lambda _: None
        ):  # `begin` mends a torn end, and says so
            folder._note(turn, offset)
        return folder

    def _note(self, turn: Turn, offset: int) -> None:
        if turn.failed:
            self.failures[turn.key] = turn.error or ""
        else:
            self.failures.pop(turn.key, None)
            self._rows[turn.key] = offset

    def __contains__(self, key: Key) -> bool:
        """Whether this turn is finished."""
        return key in self._rows

    def __len__(self) -> int:
        """How many turns are finished."""
        return len(self._rows)

    def __iter__(self) -> Iterator[Key]:
        """The keys of the finished turns, in the order of their rows."""
        return iter(self._rows)

    def turn(self, key: Key) -> Turn:
        """A finished turn, read from its row."""
        with (self.path / TURNS).open("rb") as file:
            file.seek(self._rows[key])
            return _turn(parse_json(file.readline()))

    def begin(
        self, keys: set[Key], model: dict, session: dict[str, object], **facts: object
    ) -> None:
        """Get ready to append the turns `keys` that are missing.

        `session` (command, git, environment, start) is recorded for every sitting that has something to do; the first one's
        fields also stand at the top. UserError where the folder's turns are not this run's, or of another model.
        """
        if strange := (self._rows.keys() | self.failures.keys()) - keys:
            raise UserError(
                f"{self.path / TURNS} has turns that this run does not have, such as {min(strange)}"
            )
        if self.resumed:
            _refuse_differences(
                self.path, "model", self.run["model"], json.loads(json.dumps(model))
            )
            if not keys - self._rows.keys():
                return
            before = self.run["environment"]
            if changed := list(
                _differences(before, json.loads(json.dumps(session["environment"])))
            ):
                warn(
                    f"this run was begun elsewhere ({'; '.join(changed)}); its times do not compare"
                )
        else:
            self.run |= {**facts, "model": model, **session, "sessions": []}
        self.run["sessions"].append(session)
        self.run["end"] = None
        try:
            self._write_run()
            if not self.resumed:
                write_atomically(self.path / TURNS, "")
            elif torn := mend_end(self.path / TURNS):
                warn(torn)
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; give another --out"
            ) from error

    def append(self, turn: Turn) -> None:
        """Put a turn on disk, whole and synced, before returning."""
        try:
            self._note(turn, append_synced(self.path / TURNS, asdict(turn)))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; every turn before this one is kept, and the same command "
                "goes on from there"
            ) from error

    def end(self, now: str, peak_bytes: int | None) -> None:
        """The run has ended; `peak_bytes` of memory is the most that this sitting took, where that is known."""
        self.run["end"] = now
        self.run["sessions"][-1]["peak_bytes"] = peak_bytes
        try:
            self._write_run()
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; every turn is kept"
            ) from error

    def _write_run(self) -> None:
        write_atomically(
            self.path / "run.json", json.dumps(self.run, indent=1, ensure_ascii=False) + "\n"
        )


def _remove_traces(folder: Path) -> None:
    """Remove the folder of a run that was refused before there was anything to write."""
    with suppress(OSError):
        traces = list(folder.iterdir())
        if all(map(_is_trace, traces)):
            for trace in traces:
                trace.unlink()
            folder.rmdir()


def _is_trace(path: Path) -> bool:
    """A lock or a temporary file, which a process that was killed before anything else was written leaves."""
    return path.name.startswith(".") and path.suffix in (".lock", ".tmp")


def read_run(path: Path) -> dict:
    """run.json of a run's folder; UserError where there is none that this version reads."""
    run_file = path / "run.json"
    if not run_file.exists():
        raise UserError(f"{path} is not a run's folder: it has no run.json")
    content = read_document(run_file)
    try:
        run = parse_json(content)
        if not isinstance(run, dict):
            raise TypeError(f"it holds a {type(run).__name__}")
        if run["schema_version"] != SCHEMA_VERSION:
            raise UserError(
                f"{run_file} has schema version {shown(run['schema_version'])}; this version reads {SCHEMA_VERSION}"
            )
        shape = {
            "config": dict, "model": dict, "environment": dict, "questions": dict, "question_turns": dict, "sessions": list,
            "start": str, "start_unix": float,
        }  # fmt: skip
        for name, kind in shape.items():
            _require(run, name, kind)
        _require(run["config"], "num_choices", int)
        for name in ("model", "questions"):
            _require(run[name], "name", str)
        if not all(isinstance(each, dict) for each in run["sessions"]):
            raise TypeError("its sessions are no objects")
        if not all(isinstance(each, str) for each in _require(run["config"], "decoders", list)):
            raise TypeError("its decoders are no names")
        if not all(
            _is_number(each) and type(turns) is int and turns > 0
            for each, turns in run["question_turns"].items()
        ):
            raise TypeError("its question_turns are no numbers of turns by question_id")
        texts = _require({"question_texts": {}} | run, "question_texts", dict)  # older runs: none
        if not all(_is_number(each) and _is_texts(turns) for each, turns in texts.items()):
            raise TypeError("its question_texts are no lists of texts by question_id")
    except KeyError as error:
        raise UserError(
            f"{run_file} is damaged (it has no {error}); restore it, or give another --out"
        ) from error
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{run_file} is damaged ({error}); restore it, or give another --out"
        ) from error
    return run


def _require(row: dict, name: str, kind: type) -> object:
    if not isinstance(row[name], kind):
        raise TypeError(f"{name} is {str(row[name])[:40]!r}")
    return row[name]


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and len(text) < 20 and text == str(int(text))


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


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """What the times of a run depend on."""
    packages = {name: version(name) for name in ("torch", "transformers", "fschat")}
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        **packages,
        "platform": platform.platform(),
        "device": gpu or _cpu_name(),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has taken so far: of the GPU, or the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


CODE = (
    "bench",
    "decoders",
    "llm_judge",
    "scripts",
)  # folders of which an untracked file changes what is run


def git_state() -> dict[str, object]:
    """Commit of this project's checkout and whether it had changes, or code of its own; nothing where it is no checkout."""
    where = Path(__file__).resolve().parents[2]

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", *command], cwd=where, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not (where / ".git").exists():  # installed somewhere inside another project's checkout
            return {"commit": None, "dirty": None}
        added = git("ls-files", "--others", "--exclude-standard", "--", *CODE)
        return {
            "commit": git("rev-parse", "HEAD"),
            "dirty": bool(git("status", "--porcelain", "--untracked-files=no") or added),
        }
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
