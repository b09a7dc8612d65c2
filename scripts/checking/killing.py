"""Kills runs of bench.run at random instants, resumes them, and compares the results.

Every run is a process of its own. It is forked from this one after the imports, which take longer
than a short run does.
"""

import csv
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

import bench.run
from bench.common.errors import UserError, exit_cleanly
from bench.store.answer_files import ANSWERS_FOLDER
from bench.store.run_record import RUN_FILE
from bench.store.turn import KEY, TURNS_FILE

SUMMARY_FILE = "summary.csv"
MOST_KILLS = 3  # Most kills of one run.
POLL_S = 0.002
STDOUT, STDERR = 1, 2  # File descriptors.
# File -> the fields that may differ between two runs: times, values that contain a time, and values
# that may change in the meantime.
TIMES = {
    TURNS_FILE: {"prefill_s", "decode_s"},
    ANSWERS_FOLDER: {"wall_time", "tstamp", "answer_id"},
    RUN_FILE: {"command", "start", "start_unix", "end", "sessions", "git"},
}
# Parts of the names of summary.csv's columns that depend on times.
TIMES_OF_COLUMNS = ("per_second", "wall_clock", "speed_up", "with_prefill")


@dataclass(frozen=True)
class Kills:
    """Counts of the kills. No run lost or repeated a turn."""

    turns: int  # Turns of a run.
    kills: int
    midway: int  # Kills between the first row and the last.
    torn: int  # Runs that a kill left with a torn row.


def kill_runs(flags: list[str], runs: int, seed: int) -> Kills:
    """Kill and resume so many runs, each 1 to MOST_KILLS times.

    flags: those of bench.run. seed: that of the instants, drawn evenly from the time that an
    undisturbed run takes. UserError where a run does not end as the undisturbed one.
    """
    rng = random.Random(seed)
    with TemporaryDirectory() as work:
        quiet = Path(work) / "undisturbed"
        whole_s = _run_undisturbed(flags, quiet)
        expected = without_times(quiet)
        rows: list[int] = []
        for number in tqdm(range(runs), unit="run", desc="killing"):
            out = Path(work) / f"run-{number}"
            instants = [rng.uniform(0, whole_s) for _ in range(rng.randint(1, MOST_KILLS))]
            rows += kill_and_resume(flags, out, instants)
            found = without_times(out)
            differing = [name for name, text in expected.items() if found.get(name) != text]
            if differing:
                raise UserError(
                    f"run {number} differs from the undisturbed one in {', '.join(differing)}"
                )
        torn = len(list(Path(work).glob(f"run-*/{TURNS_FILE}.torn")))
    turns = expected[TURNS_FILE].count("\n")
    return Kills(turns, len(rows), sum(0 < each < turns for each in rows), torn)


def _run_undisturbed(flags: list[str], out: Path) -> float:
    """Seconds of a run that is left alone. UserError where it fails."""
    began = time.monotonic()
    if status := ended(start(flags, out)):
        said = out.with_suffix(".log").read_text().strip().splitlines()
        last = said[-1] if said else "it said nothing"
        raise UserError(f"the undisturbed run ended with status {status}: {last}")
    return time.monotonic() - began


def start(flags: list[str], out: Path) -> int:
    """The process id of a new run. Its stderr goes to a file beside its folder."""
    if process := os.fork():
        return process
    os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
    log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, STDERR)
    # On a busy machine, threads that wait for each other take many times as long.
    torch.set_num_threads(1)
    sys.argv = ["bench.run", *flags, "--out", str(out)]
    status = 1
    try:
        exit_cleanly(bench.run.main)
    except SystemExit as end:
        status = end.code or 0
    finally:
        os._exit(status)


def ended(process: int, within_s: float | None = None) -> int | None:
    """The status of a process. None: it has not ended within that time."""
    deadline = None if within_s is None else time.monotonic() + within_s
    while deadline is None or time.monotonic() < deadline:
        found, status = os.waitpid(process, 0 if deadline is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_S)
    return None


def kill_and_resume(flags: list[str], out: Path, instants: Sequence[float]) -> list[int]:
    """Kill a run at these seconds after each of its starts, then let it finish.

    A start that ends sooner is not killed. Returns the number of whole rows on disk at each kill.
    UserError where a start that was not killed fails, or one loses or changes a row.
    """
    kept = []
    for instant in instants:
        process = start(flags, out)
        if (status := ended(process, instant)) is None:
            os.kill(process, signal.SIGKILL)
            ended(process)
            kept.append(whole_rows(out))
        else:
            _check_end(out, status)
    _check_end(out, ended(start(flags, out)))
    final = whole_rows(out)
    if not all(final.startswith(rows) for rows in kept):
        raise UserError(f"{out}: a row that was on disk when the run was killed is lost or changed")
    rows = map(json.loads, final.splitlines())
    keys = [tuple(row[name] for name in KEY) for row in rows]
    if len(set(keys)) < len(keys):
        raise UserError(f"{out}: a turn stands twice")
    return [rows.count(b"\n") for rows in kept]


def _check_end(out: Path, status: int) -> None:
    """UserError where the status of a start that ended by itself is not 0."""
    if status:
        log = out.with_suffix(".log")
        raise UserError(f"{out}: the resumed run ended with status {status}; see {log}")


def whole_rows(out: Path) -> bytes:
    """The rows of a run's turns that end with a newline."""
    file = out / TURNS_FILE
    content = file.read_bytes() if file.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def without_times(out: Path) -> dict[str, str]:
    """File name -> content without times, so that two runs can be compared."""
    table = list(csv.DictReader((out / SUMMARY_FILE).read_text().splitlines()))
    columns = {name for name in table[0] if any(part in name for part in TIMES_OF_COLUMNS)}
    run = json.loads((out / RUN_FILE).read_text())
    files = out.rglob("[!.]*")
    names = sorted(str(path.relative_to(out)) for path in files if path.suffix != ".torn")
    content = {
        TURNS_FILE: _rows_without(out / TURNS_FILE, TIMES[TURNS_FILE]),
        SUMMARY_FILE: json.dumps(_without(table, columns)),
        RUN_FILE: json.dumps(_without(run, TIMES[RUN_FILE])),
        "names": str(names),
    }
    for path in (out / ANSWERS_FOLDER).glob("*.jsonl"):
        content[path.name] = _rows_without(path, TIMES[ANSWERS_FOLDER])
    return content


def _rows_without(path: Path, names: set[str]) -> str:
    rows = map(json.loads, path.read_text().splitlines())
    return "".join(json.dumps(_without(row, names)) + "\n" for row in rows)


def _without(value: object, names: set[str]) -> object:
    """JSON data without the fields of these names, wherever they stand in it."""
    if isinstance(value, dict):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value
