"""What a run records of the machine and the code: environment, peak memory, commit."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from decoders.engine.few_rows import multiplies_bfloat16

try:
    import resource
except ImportError:  # Windows has no such module.
    resource = None

CODE = ("bench", "decoders", "llm_judge", "scripts")  # An untracked file here is dirty.
PACKAGES = ("torch", "transformers", "fschat")


def environment(device: torch.device, dtype: torch.dtype) -> dict[str, object]:
    """The machine and versions of a run: the fields of `bench.store.run_record.Environment`."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": gpu or _cpu_name(),
        "device_type": device.type,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
    }


def auto_dtype(environment: dict[str, object]) -> str:
    """Why `--dtype auto` gave the dtype that it gave, in one line.

    environment: the result of `environment`, on whatever machine the model is.
    """
    dtype = environment["dtype"]
    if environment["device_type"] != "cpu":
        return f"--dtype auto: {dtype}, the checkpoint's own"
    line = f"--dtype auto: {dtype}, in which answers can be compared token by token"
    if multiplies_bfloat16():
        line += "; --dtype bfloat16 is faster on this processor"
    return line


def peak_bytes(device: torch.device) -> int:
    """The most bytes of memory that this process has taken so far.

    On CUDA it is the memory of all GPUs, added up, else RAM.
    """
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    if resource is None:
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux KiB.


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git_state() -> dict[str, object]:
    """The commit of this project's checkout, and whether it is dirty.

    Dirty: a tracked file is changed, or a file of code is untracked. Both are None where the
    project is not in a checkout.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*command: str) -> str:
        return subprocess.run(
            ["git", *command], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        if not (root / ".git").exists():  # Installed somewhere inside another project's checkout.
            return {"commit": None, "dirty": None}
        added = git("ls-files", "--others", "--exclude-standard", "--", *CODE)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed or added)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
