"""What a run writes, and how it is read back.

<run>/run.json      configuration, environment, start and end; replaced atomically
<run>/turns.jsonl   one `Turn` a line, appended and synced before the next turn begins: the source of every number
"""

import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path

import torch

from bench.errors import UserError
from bench.files import append_synced, json_line, write_atomically

SCHEMA_VERSION = 1
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
    step_ends: list[int] = field(default_factory=list)  # characters of `text` that are there after each step; older rows: none

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
    turns: dict[Key, Turn] = {}
    warnings = []
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            turn = _turn(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            where = f"{path}, line {number}"
            if number == len(lines):  # a whole row is followed by a newline
                warnings.append(f"{where} is torn and left out")
                continue
            what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(f"{where} is not a turn of this version ({what}); repair or remove the line") from error
        turns[turn.key] = turn
    return list(turns.values()), warnings


_KINDS = {int: {int}, list[int]: {int}, str: {str}, float: {int, float}, str | None: {str, type(None)}}


def _turn(row: dict) -> Turn:
    """A turn from a row; KeyError, TypeError or ValueError where a field is missing or not what it must be."""
    row = {"step_ends": []} | row
    for each in fields(Turn):
        value = row[each.name]
        members = value if each.type == list[int] else [value]
        if not isinstance(members, list) or not set(map(type, members)) <= _KINDS[each.type]:
            raise TypeError(f"{each.name} is {str(value)[:40]!r}, expected {each.type}")
    turn = Turn(**{each.name: row[each.name] for each in fields(Turn)})
    if sum(turn.accept_lengths) != len(turn.token_ids) or len(turn.nodes) != len(turn.accept_lengths):
        raise ValueError("accept_lengths do not add up to the tokens")
    if turn.step_ends and len(turn.step_ends) != len(turn.accept_lengths):
        raise ValueError("step_ends are not one for each step")
    return turn


class RunFolder:
    """The folder of one run: refuses another configuration, appends turns, knows what is done.

    No file is written before `begin`, so that a run which cannot start leaves a finished one as it was.
    """

    def __init__(self, path: Path, run: dict, turns: list[Turn], resumed: bool) -> None:
        self.path = path
        self.run = run
        self.turns = {turn.key: turn for turn in turns}
        self.resumed = resumed

    @classmethod
    def open(cls, path: Path, config: dict) -> "RunFolder":
        """A new run in `path`, or the one that is there if its configuration is the same.

        UserError where the folder holds something else, with the differences.
        """
        config = json.loads(json.dumps(config))  # as it will be read back
        if not (path / "run.json").exists():
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(f"{path} exists and is not a run's folder; give another --out")
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{path} cannot be made: {error.strerror}; give another --out") from error
            return cls(path, {"schema_version": SCHEMA_VERSION, "config": config}, [], resumed=False)
        run = read_run(path)
        turns_file = path / "turns.jsonl"
        if not turns_file.exists() or not turns_file.stat().st_size:
            return cls(path, {"schema_version": SCHEMA_VERSION, "config": config}, [], resumed=False)
        _refuse_differences(path, "configuration", run["config"], config)
        turns, warnings = read_turns(turns_file)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return cls(path, run, [turn for turn in turns if not turn.failed], resumed=True)  # failed turns are tried again

    def begin(self, keys: set[Key], model: dict, session: dict[str, object], **facts: object) -> None:
        """Get ready to append the turns `keys` that are missing.

        `session` (command, git, environment, start) is recorded for every sitting that has something to do; the first one's
        fields also stand at the top. UserError where the folder's turns are not this run's, or of another model.
        """
        if strange := self.turns.keys() - keys:
            raise UserError(f"{self.path / 'turns.jsonl'} has turns that this run does not have, such as {min(strange)}")
        if self.resumed:
            _refuse_differences(self.path, "model", self.run["model"], json.loads(json.dumps(model)))
            if not keys - self.turns.keys():
                return
            before = self.run["environment"]
            if changed := list(_differences(before, json.loads(json.dumps(session["environment"])))):
                print(
                    f"warning: this run was begun elsewhere ({'; '.join(changed)}); its times do not compare", file=sys.stderr
                )
        else:
            self.run |= {**facts, "model": model, **session, "sessions": []}
        self.run["sessions"].append(session)
        self.run["end"] = None
        try:
            self._write_run()
            rows = "".join(json_line(asdict(turn)) for turn in self.turns.values())
            write_atomically(self.path / "turns.jsonl", rows)
        except OSError as error:
            raise UserError(f"{self.path} cannot be written: {error.strerror}; give another --out") from error

    def append(self, turn: Turn) -> None:
        """Put a turn on disk, whole and synced, before returning."""
        try:
            append_synced(self.path / "turns.jsonl", asdict(turn))
        except OSError as error:
            raise UserError(
                f"{self.path} cannot be written: {error.strerror}; every turn before this one is kept, and the same command "
                "goes on from there"
            ) from error
        self.turns[turn.key] = turn

    def end(self, now: str) -> None:
        self.run["end"] = now
        self._write_run()

    def _write_run(self) -> None:
        write_atomically(self.path / "run.json", json.dumps(self.run, indent=1, ensure_ascii=False) + "\n")


def read_run(path: Path) -> dict:
    """run.json of a run's folder; UserError where there is none that this version reads."""
    run_file = path / "run.json"
    try:
        run = json.loads(run_file.read_text(encoding="utf-8"))
        if run["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{run_file} has schema version {run['schema_version']}; this version reads {SCHEMA_VERSION}")
        shape = {"config": dict, "model": dict, "environment": dict, "question_turns": dict, "sessions": list, "start": str}
        for name, kind in shape.items():
            if not isinstance(run[name], kind):
                raise TypeError(f"{name} is {str(run[name])[:40]!r}")
        if not isinstance(run["config"]["decoders"], list) or not isinstance(run["start_unix"], float):
            raise TypeError("its decoders or its start are not what they must be")
    except FileNotFoundError:
        raise UserError(f"{path} is not a run's folder: it has no run.json") from None
    except OSError as error:
        raise UserError(f"{run_file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{run_file} is damaged ({error}); restore it, or give another --out") from error
    return run


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


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_state() -> dict[str, object]:
    """Commit of this project's checkout and whether it had changes; nothing where it is no checkout."""
    where = Path(__file__).resolve().parent.parent

    def git(*command: str) -> str:
        return subprocess.run(["git", *command], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not (where / ".git").exists():  # installed somewhere inside another project's checkout
            return {"commit": None, "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
