"""What a run records of the machine and the code."""

import subprocess

import psutil
import torch

from bench.running import environment
from bench.store.run_record import Environment


def test_code_that_is_in_no_commit_is_a_change(tmp_path, monkeypatch):
    def git(*command: str) -> None:
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)

    (tmp_path / "bench" / "running").mkdir(parents=True)
    file = tmp_path / "bench" / "running" / "environment.py"
    file.touch()
    monkeypatch.setattr(environment, "__file__", str(file))
    assert environment.git_state() == {"commit": None, "dirty": None}
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "notes.txt").touch()
    assert environment.git_state()["dirty"] is False
    (tmp_path / "bench" / "own.py").touch()
    assert environment.git_state()["dirty"] is True


def test_an_environment_is_what_its_record_holds():
    found = environment.environment(torch.device("cpu"), torch.float32)
    assert Environment.model_validate(found).as_json() == found
    assert found["dtype"] == "float32" and found["torch"] == torch.__version__


def test_peak_memory_is_at_least_what_is_in_use():
    in_use = psutil.Process().memory_info().rss
    peak = environment.peak_bytes(torch.device("cpu"))
    assert in_use * 0.9 < peak < in_use * 100


def test_the_choice_of_dtype_is_said_with_its_reason(monkeypatch):
    for in_hardware in (False, True):
        monkeypatch.setattr(environment, "multiplies_bfloat16", lambda: in_hardware)  # noqa: B023
        line = environment.auto_dtype({"device_type": "cpu", "dtype": "float32"})
        assert "float32" in line and ("--dtype bfloat16" in line) is in_hardware
        line = environment.auto_dtype({"device_type": "cuda", "dtype": "float16"})
        assert line == "--dtype auto: float16, the checkpoint's own"
