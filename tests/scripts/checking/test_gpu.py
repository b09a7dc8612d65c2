"""check_gpu.py runs what it says, and reads what came out. No GPU is needed here."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import check_gpu
import pytest
import torch

from checking import gpu
from checking.gpu import auto_checks, shape_checks
from decoders.engine.own_kernels import PURPOSES
from measuring.shape_steps import NOTHING
from tests.helpers.commands import script
from tests.helpers.runs import make_turn, write_run


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch):
    """check_gpu.py believes that there is one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "find_spec", lambda name: name)


def shape_report(
    greedy_s: float, tree_s: float, of_copy: float, changes: tuple[str, ...] = PURPOSES
) -> dict:
    rows = [
        {"decoder": "greedy", "static_shapes": False, "step_s": 9.0},
        {"decoder": "greedy", "static_shapes": True, "step_s": greedy_s},
        {"decoder": "dynamic:nodes=64", "static_shapes": True, "step_s": tree_s},
        {"decoder": "hf-static:slots=544", "static_shapes": False, "step_s": 2 * greedy_s},
    ]
    without = [
        {"without": purpose, "decoder": "greedy", "step_s": seconds}
        for purpose, seconds in ((NOTHING, 2.0), ("compiled gate", 2.5))
    ]
    return {
        "greedy_bytes_per_s": of_copy * 4e12,
        "copy_bytes_per_s": 4e12,
        "rows": rows,
        "changes": dict.fromkeys(changes, 32),
        "without": without,
    }


def auto_run(folder: Path, auto_s: float, fixed_s: float) -> Path:
    specs = ["greedy", *(f"{name}:nodes={size}" for name in gpu.DECODERS for size in gpu.SIZES)]
    seconds = {spec: auto_s if spec.endswith("auto") else fixed_s for spec in specs}
    return write_run(folder, [make_turn(spec, [2, 2], seconds[spec]) for spec in specs])


@pytest.mark.parametrize(
    ("report", "passed"),
    [
        (shape_report(1.0, 1.2, 0.74), [True, True, True]),
        (shape_report(1.0, 1.21, 0.75), [True, False, True]),
        (shape_report(1.0, 1.1, 0.73), [False, True, True]),
        (shape_report(1.0, 1.2, 0.74, PURPOSES[:1]), [True, True, False]),
    ],
)
def test_checks_of_a_shape(report, passed):
    checks = shape_checks(report)
    assert [check.passed for check in checks[:3]] == passed
    without, peer = checks[3:]
    assert "without compiled gate" in without.name and without.found == "1.250"
    assert peer.name.startswith("hf-static") and peer.found == "2.00"


@pytest.mark.parametrize(("auto_s", "passed"), [(1.0, True), (1.02, True), (1.05, False)])
def test_auto_is_compared_with_the_best_fixed_size(auto_s, passed, tmp_path):
    checks = auto_checks(auto_run(tmp_path / "auto-demo", auto_s, fixed_s=1.0))
    assert [check.passed for check in checks] == [passed] * len(gpu.DECODERS)


def test_parts_are_run_one_after_the_other(tmp_path, monkeypatch, capsys):
    out, ran = tmp_path / "gpu", []

    def run(command, *, cwd, stdout, stderr, timeout):
        ran.append(command[1:])
        if "--out" in command:
            result = Path(command[command.index("--out") + 1])
            if result.suffix:
                result.write_text(json.dumps(shape_report(1.0, 1.1, 0.8)))
            else:
                auto_run(result, 1.0, 1.0)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", run)
    assert script(check_gpu.main, "--out", out, "--model", "demo,other") == 0
    assert [each[0] for each in ran] == [
        "-m", "-m", "scripts/bench_7b_shape.py", "scripts/bench_products.py", "-m", "-m",
    ]  # fmt: skip
    said = capsys.readouterr().out
    assert "auto-other" in said and "FAILED" not in said
    assert (out / "graphs.txt").exists()


def test_all_parts_together_take_less_than_8_minutes(tmp_path):
    settings = gpu.GpuSettings(out=tmp_path)
    parts = [each for part in settings.part for each in gpu.commands(part, settings)]
    assert sum(seconds for _, seconds, _ in parts) < 8 * 60


@pytest.mark.parametrize("how", ["fails", "hangs"])
def test_a_part_that_does_not_end_well_fails_and_the_others_go_on(
    how, tmp_path, monkeypatch, capsys
):
    def run(command, *, cwd, stdout, stderr, timeout):
        if how == "hangs":
            raise subprocess.TimeoutExpired(command, timeout)
        return SimpleNamespace(returncode=3)

    monkeypatch.setattr(subprocess, "run", run)
    assert script(check_gpu.main, "--out", tmp_path / "gpu", "--part", "graphs,products") == 1
    said = capsys.readouterr().out
    assert said.count("FAILED") == 2


def test_without_a_gpu_nothing_is_ok(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert script(check_gpu.main, "--out", tmp_path / "gpu", "--part", "graphs,kernels") == 2
    assert "this machine has no GPU with CUDA" in capsys.readouterr().err


def test_without_triton_the_kernels_are_not_said_to_be_right(tmp_path, monkeypatch, capsys):
    """All their tests are skipped there, and pytest ends with 0."""
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    assert script(check_gpu.main, "--out", tmp_path / "gpu", "--part", "kernels") == 2
    assert "Triton is not installed" in capsys.readouterr().err


def test_a_run_of_an_earlier_check_is_not_judged_again(tmp_path, monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda *about, **more: ran.append(about))
    auto_run(tmp_path / "auto-demo", 1.0, 1.0)
    assert script(check_gpu.main, "--out", tmp_path) == 2
    assert "auto-demo is a run of an earlier check" in capsys.readouterr().err and not ran


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("--part", "heads"),
            "--part is 'heads'; expected some of graphs,kernels,shape,products,auto",
        ),
        ((), "the following arguments are required: --out"),
    ],
)
def test_what_cannot_be_checked_is_said(arguments, says, tmp_path, capsys):
    out = ("--out", tmp_path) if arguments else ()
    assert script(check_gpu.main, *out, *arguments) == 2
    assert says in capsys.readouterr().err
