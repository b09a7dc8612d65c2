"""Kill runs with SIGKILL at random instants, resume them, and compare each with one that nobody disturbed.

    python scripts/kill_and_resume.py --runs 100
    python scripts/kill_and_resume.py --runs 20 -- --model my-heads/medusa --decoder greedy,static --max-new-tokens 64

What stands behind -- are flags of bench.run. Each run is killed 1 to 3 times, each time at an instant drawn evenly from the
time that an undisturbed run takes, and then left alone. Checked are:

    after each kill   no row that was whole is lost or changed by the resumed run
    at the end        turns.jsonl, the answer files, summary.csv and run.json are byte-equal to the undisturbed run's, times
                      and what is made of them aside; no turn stands twice

Every run is a process of its own, forked from this one after the imports, which take longer than a short run does.
"""

import argparse
import csv
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

import bench.run
from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly

FLAGS = [
    "--decoder",
    "greedy,dynamic:nodes=8",
    "--limit",
    "6",
    "--max-new-tokens",
    "16",
    "--device",
    "cpu",
]
TIMES = {  # of each file: what differs between any two runs, because it is a time, has one in it, or may change meanwhile
    "turns.jsonl": {"prefill_s", "decode_s"},
    "answers": {"wall_time", "tstamp", "answer_id"},
    "run.json": {"command", "start", "start_unix", "end", "sessions", "git"},
}


def start(flags: list[str], out: Path) -> int:
    """The process id of a new run."""
    if process := os.fork():
        return process
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    torch.set_num_threads(
        1
    )  # on a busy machine, threads that wait for each other take many times as long
    sys.argv = ["bench.run", *flags, "--out", str(out)]
    status = 1
    try:
        exit_cleanly(bench.run.main)
    except SystemExit as ended:
        status = ended.code or 0
    finally:
        os._exit(status)


def ended(process: int, within_s: float | None = None) -> int | None:
    """The status of a process, or None if it has not ended within that time."""
    deadline = None if within_s is None else time.monotonic() + within_s
    while deadline is None or time.monotonic() < deadline:
        found, status = os.waitpid(process, 0 if deadline is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def without_times(out: Path) -> dict[str, str]:
    """What a run's files hold, by name, as text that two runs can be compared by."""

    def lines(path: Path, times: set[str]) -> str:
        return "".join(
            json.dumps(_without(json.loads(line), times)) + "\n"
            for line in path.read_text().splitlines()
        )

    table = list(csv.DictReader((out / "summary.csv").read_text().splitlines()))
    times = {
        name
        for name in table[0]
        if "per_second" in name or "wall_clock" in name or "speed_up" in name
    }
    content = {
        "turns.jsonl": lines(out / "turns.jsonl", TIMES["turns.jsonl"]),
        "summary.csv": json.dumps(_without(table, times)),
        "run.json": json.dumps(
            _without(json.loads((out / "run.json").read_text()), TIMES["run.json"])
        ),
        "names": str(
            sorted(
                str(path.relative_to(out)) for path in out.rglob("[!.]*") if path.suffix != ".torn"
            )
        ),
    }
    return content | {
        path.name: lines(path, TIMES["answers"]) for path in (out / "answers").glob("*.jsonl")
    }


def _without(value: object, names: set[str]) -> object:
    if isinstance(value, dict):
        return {name: _without(each, names) for name, each in value.items() if name not in names}
    return [_without(each, names) for each in value] if isinstance(value, list) else value


def whole_rows(out: Path) -> bytes:
    turns = out / "turns.jsonl"
    content = turns.read_bytes() if turns.exists() else b""
    return content[: content.rfind(b"\n") + 1]


def kill_and_resume(flags: list[str], out: Path, instants: list[float]) -> list[int]:
    """Kill a run at these seconds after each of its starts, then let it finish; whole rows on disk at each kill.

    UserError where the last start fails, or loses or changes a row.
    """
    kept = []
    for instant in instants:
        process = start(flags, out)
        if ended(process, instant) is None:
            os.kill(process, signal.SIGKILL)
            ended(process)
        kept.append(whole_rows(out))
    if status := ended(start(flags, out)):
        raise UserError(
            f"{out}: the resumed run ended with status {status}; see {out.with_suffix('.log')}"
        )
    final = whole_rows(out)
    if not all(final.startswith(rows) for rows in kept):
        raise UserError(f"{out}: a row that was on disk when the run was killed is lost or changed")
    keys = [
        tuple(json.loads(row)[name] for name in ("question_id", "decoder", "choice", "turn"))
        for row in final.splitlines()
    ]
    if len(set(keys)) < len(keys):
        raise UserError(f"{out}: a turn stands twice")
    return [rows.count(b"\n") for rows in kept]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=whole(1), default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the instants (default: 0)")
    parser.add_argument(
        "flags", nargs="*", help=f"of bench.run, behind -- (default: {' '.join(FLAGS)})"
    )
    args = parser.parse_args()
    flags, rng = args.flags or FLAGS, random.Random(args.seed)
    with TemporaryDirectory() as work:
        began = time.monotonic()
        if status := ended(start(flags, Path(work) / "undisturbed")):
            said = (Path(work) / "undisturbed.log").read_text().strip().splitlines()
            raise UserError(
                f"the undisturbed run ended with status {status}: {said[-1] if said else 'it said nothing'}"
            )
        whole_s = time.monotonic() - began
        expected = without_times(Path(work) / "undisturbed")
        rows: list[int] = []
        for number in tqdm(range(args.runs), unit="run", desc="killing"):
            out = Path(work) / f"run-{number}"
            rows += kill_and_resume(
                flags, out, [rng.uniform(0, whole_s) for _ in range(rng.randint(1, 3))]
            )
            if differing := [
                name for name, text in expected.items() if without_times(out).get(name) != text
            ]:
                raise UserError(
                    f"run {number} differs from the undisturbed one in {', '.join(differing)}"
                )
        torn = len(list(Path(work).glob("run-*/turns.jsonl.torn")))
    total = expected["turns.jsonl"].count("\n")
    midway = sum(0 < each < total for each in rows)
    print(
        f"{args.runs} runs of {total} turns, killed {len(rows)} times, {midway} of them between the first row and the last; "
        f"{torn} left a torn row. None lost or repeated a turn, and all ended with the files of an undisturbed run"
    )


if __name__ == "__main__":
    exit_cleanly(main)
