"""What is promised of a GPU: commands that measure, and checks of what they found."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from bench.common.errors import UserError
from bench.common.files import safe_name
from bench.store.turn import TURNS_FILE, read_turns
from decoders.engine.own_kernels import PURPOSES
from measuring.shape_steps import NOTHING
from settings.checking import GpuSettings

ROOT = Path(__file__).resolve().parents[2]
OF_COPY = 0.74  # Greedy's bytes of weights per second, at least, over a copy's.
OF_GREEDY = 1.20  # Greedy steps that a 64-node dynamic step takes at most.
OF_BEST = 0.97  # Speed of --nodes auto, at least, over the best fixed size's. Runs vary by 3 %.
PRODUCTS_7B = "12288x4096,4096x4096,22016x4096,4096x11008,32000x4096"
DECODERS = ("dynamic", "conditional")
SIZES = ("8", "16", "32", "64", "auto")


@dataclass(frozen=True)
class Check:
    """A number, what is promised of it, and whether that holds."""

    name: str
    found: str
    promised: str
    passed: bool


def commands(part: str, settings: GpuSettings) -> Iterator[tuple[str, int, list[str]]]:
    """The commands of a part: name, seconds that it may take, arguments of Python."""
    if part == "graphs":
        yield part, 50, ["-m", "pytest", "tests/decoders/engine/test_graphs.py", "-k", "cuda"]
    if part == "kernels":
        tests = (
            "kernels/test_tree_attention.py",
            "kernels/test_cache_rows.py",
            "test_own_kernels.py",
        )
        yield part, 70, ["-m", "pytest", *(f"tests/decoders/engine/{name}" for name in tests)]
    if part == "shape":
        flags = ["--compile", "--kernels", "--without-each", "--rounds", "2", "--tokens", "32"]
        yield part, 200, ["scripts/bench_7b_shape.py", *flags, "--out", _file(part, settings)]
    if part == "products":
        flags = ["--device", "cuda", "--dtype", "float16", "--rows", "1,64", "--rounds", "3"]
        flags += ["--sizes", PRODUCTS_7B, "--out", _file(part, settings)]
        yield part, 45, ["scripts/bench_products.py", *flags]
    if part == "auto":
        specs = [f"{name}:nodes={size}" for name in DECODERS for size in SIZES]
        flags = ["--decoder", ",".join(["greedy", *specs]), "--limit", "4"]
        flags += ["--temperature", "0", "--max-new-tokens", "192", "--device", "cuda"]
        for model in settings.model:
            name = f"auto-{safe_name(model)}"
            run = str(settings.out.resolve() / name)
            yield name, 110, ["-m", "bench.run", "--model", model, *flags, "--out", run]


def _file(part: str, settings: GpuSettings) -> str:
    return str(settings.out.resolve() / f"{part}.json")


def check_gpu(settings: GpuSettings) -> list[Check]:
    """Run the parts, one after the other.

    UserError where there is no GPU, or --out cannot be a folder or holds runs of an earlier check.
    """
    if not torch.cuda.is_available():
        raise UserError("this machine has no GPU with CUDA, which is what is checked here")
    if "kernels" in settings.part and find_spec("triton") is None:
        raise UserError(
            "Triton is not installed, and without it the tests of our kernels are skipped; install "
            "it, or leave kernels out of --part"
        )
    for part in settings.part:
        for name, _, _ in commands(part, settings):
            if (settings.out / name).exists():
                raise UserError(
                    f"{settings.out / name} is a run of an earlier check, which would be judged in "
                    "place of a new one; give another --out"
                )
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {settings.out} cannot be made: {error.strerror}") from error
    checks = []
    for part in settings.part:
        for name, seconds, arguments in commands(part, settings):
            print(f"{name} ...", file=sys.stderr)
            failure = _failure(name, seconds, arguments, settings.out)
            checks.append(Check(name, failure or "done", "done", not failure))
            if not failure:
                checks += _checks(part, settings.out / name)
    return checks


def _failure(name: str, seconds: int, arguments: list[str], out: Path) -> str | None:
    """Run a command, with its output in <out>/<name>.txt. What went wrong; None: nothing."""
    log = out / f"{name}.txt"
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [sys.executable, *arguments], cwd=ROOT, stdout=file, stderr=file, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return f"not done after {seconds} s; see {log}"
    return f"exit status {done.returncode}; see {log}" if done.returncode else None


def _checks(part: str, result: Path) -> list[Check]:
    """result: the path of the part's file, without its ending, or of its run."""
    if part == "shape":
        return shape_checks(json.loads(result.with_suffix(".json").read_text()))
    if part == "auto":
        return auto_checks(result)
    return []


def shape_checks(report: dict) -> list[Check]:
    """Of what bench_7b_shape.py wrote."""
    static = {row["decoder"]: row["step_s"] for row in report["rows"] if row["static_shapes"]}
    of_copy = report["greedy_bytes_per_s"] / report["copy_bytes_per_s"]
    of_greedy = static["dynamic:nodes=64"] / static["greedy"]
    checks = [
        Check("greedy's reads / a copy's", f"{of_copy:.3f}", f">= {OF_COPY}", of_copy >= OF_COPY),
        Check("64 nodes / greedy", f"{of_greedy:.3f}", f"<= {OF_GREEDY}", of_greedy <= OF_GREEDY),
        _kernels_check(report["changes"]),
    ]
    whole = {
        row["decoder"]: row["step_s"] for row in report["without"] if row["without"] == NOTHING
    }
    for row in report["without"]:
        if row["without"] != NOTHING:
            slower = row["step_s"] / whole[row["decoder"]]
            what = f"{row['decoder']} without {row['without']} / with it"
            checks.append(Check(what, f"{slower:.3f}", "", passed=True))
    for row in report["rows"]:
        if row["decoder"].startswith("hf-"):
            slower = row["step_s"] / static["greedy"]
            checks.append(Check(f"{row['decoder']} / greedy", f"{slower:.2f}", "", passed=True))
    return checks


def _kernels_check(changes: dict[str, int]) -> Check:
    """changes: of the model, by purpose."""
    used = [purpose for purpose in PURPOSES if purpose in changes]
    found = ", ".join(used) or "none"
    return Check("our kernels in use", found, "both", len(used) == len(PURPOSES))


def auto_checks(run: Path) -> list[Check]:
    """Of a run's folder: tokens per second of --nodes auto over those of the best fixed size."""
    tokens: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for turn in read_turns(run / TURNS_FILE)[0]:
        tokens[turn.decoder] += len(turn.token_ids)
        seconds[turn.decoder] += turn.decode_s
    speed = {spec: tokens[spec] / seconds[spec] for spec in tokens}
    checks = []
    for name in DECODERS:
        fixed = {spec: speed[spec] for spec in speed if spec.startswith(f"{name}:")}
        auto = fixed.pop(f"{name}:nodes=auto")
        best = max([*fixed, "greedy"], key=speed.__getitem__)
        ratio = auto / speed[best]
        what = f"{run.name}: {name}, auto / {best}"
        checks.append(Check(what, f"{ratio:.3f}", f">= {OF_BEST}", ratio >= OF_BEST))
    return checks


def table(checks: list[Check]) -> Table:
    """A line for each check."""
    out = Table(box=box.SIMPLE_HEAD)
    for name in ("check", "found", "promised", ""):
        out.add_column(name)
    for check in checks:
        verdict = "ok" if check.passed else "FAILED"
        out.add_row(check.name, check.found, check.promised, verdict)
    return out
