"""What a run writes, and how it is read back.

<run>/run.json      configuration, environment, start and end; replaced atomically
<run>/turns.jsonl   one `Turn` a line, appended and synced before the next turn begins: the source of every number
"""

import json
import platform
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
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

    @property
    def key(self) -> Key:
        return self.question_id, self.decoder, self.choice, self.turn

    @property
    def failed(self) -> bool:
        return self.finish_reason == "error"


def read_turns(path: Path) -> tuple[list[Turn], list[str]]:
    """The turns of a file, the last row for each key, and warnings about lines that are not whole rows."""
    turns: dict[Key, Turn] = {}
    warnings = []
    names = {field.name for field in fields(Turn)}
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            turn = Turn(**{name: row[name] for name in names})
            if sum(turn.accept_lengths) != len(turn.token_ids) or len(turn.nodes) != len(turn.accept_lengths):
                raise ValueError("accept_lengths do not add up to the tokens")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            torn = number == len(lines)  # a row is followed by a newline once it is whole
            warnings.append(f"{path}, line {number}: {'torn, ' if torn else ''}left out ({type(error).__name__}: {error})")
            continue
        turns[turn.key] = turn
    return list(turns.values()), warnings


class RunFolder:
    """The folder of one run: refuses another configuration, appends turns, knows what is done."""

    def __init__(self, path: Path, run: dict, turns: list[Turn]) -> None:
        self.path = path
        self.run = run
        self.turns = {turn.key: turn for turn in turns}

    @classmethod
    def open(cls, path: Path, config: dict, **facts: object) -> "RunFolder":
        """Begin a run in `path`, or go on with the one that is there if its configuration is the same.

        `facts` are the further fields of run.json; "start" is kept from the beginning. UserError where the folder
        holds something else, with the differences.
        """
        run = {"schema_version": SCHEMA_VERSION, "config": config, **facts}
        run_file, turns_file = path / "run.json", path / "turns.jsonl"
        turns: list[Turn] = []
        try:
            if run_file.exists():
                before = read_run(path)
                turns, warnings = read_turns(turns_file)
                if turns and (differences := list(_differences(before["config"], json.loads(json.dumps(config))))):
                    raise UserError(
                        f"{path} holds a run of another configuration ({'; '.join(differences)}); "
                        "give another --out, or the same options to resume it"
                    )
                run["start"] = before["start"]
                for warning in warnings:
                    print(f"warning: {warning}", file=sys.stderr)
                turns = [turn for turn in turns if not turn.failed]  # failed turns are tried again
                write_atomically(turns_file, "".join(json_line(asdict(turn)) for turn in turns))
            elif path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UserError(f"{path} exists and is not a run's folder; give another --out")
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, run, turns)
            folder.update()
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}; give another --out") from error
        return folder

    def append(self, turn: Turn) -> None:
        """Put a turn on disk, whole and synced, before returning."""
        append_synced(self.path / "turns.jsonl", asdict(turn))
        self.turns[turn.key] = turn

    def update(self, **facts: object) -> None:
        """Set fields of run.json."""
        self.run |= facts
        write_atomically(self.path / "run.json", json.dumps(self.run, indent=1, ensure_ascii=False) + "\n")


def read_run(path: Path) -> dict:
    """run.json of a run's folder; UserError where there is none that this version reads."""
    run_file = path / "run.json"
    try:
        run = json.loads(run_file.read_text(encoding="utf-8"))
        found = run["schema_version"]
    except FileNotFoundError:
        raise UserError(f"{path} is not a run's folder: it has no run.json") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run_file} is damaged ({error}); restore it, or give another --out") from error
    if found != SCHEMA_VERSION:
        raise UserError(f"{run_file} has schema version {found}; this version reads {SCHEMA_VERSION}")
    return run


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
