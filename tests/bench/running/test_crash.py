"""What a run survives: kills, signals, a full disk, a second process, no memory, NaN logits."""

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.common.errors import UserError
from bench.common.files import append_synced, mend_end, sole_writer, write_atomically
from bench.running.runner import Runner
from bench.running.turn_generator import TurnGenerator
from bench.store.turn import Turn, read_turns
from decoders import registry
from decoders.accept import Exact, Sample, Threshold
from decoders.acceptance import Typical
from decoders.engine.engine import Engine
from decoders.model.cache import KVCache
from decoders.step import NotANumber
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import basics, bench, without_times
from tests.helpers.companions import spec_of
from tests.helpers.models import PROMPT, tiny_heads, tiny_llama
from tests.helpers.paths import ROOT
from tests.helpers.steps import steps_of, tokens_of


@contextmanager
def files_of_at_most(size: int):
    """As on a full disk: a write past `size` bytes writes what fits, and the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_row_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert append_synced(path, {"n": 1}) == 0
    before = path.read_bytes()
    with files_of_at_most(len(before) + 5), pytest.raises(OSError, match="File too large"):
        append_synced(path, {"n": "x" * 100})
    assert path.read_bytes() == before
    assert append_synced(path, {"n": 2}) == len(before)
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n'


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, "old")
    (tmp_path / ".run.json.999999999.tmp").write_text("left by a process that was killed")
    with files_of_at_most(5), pytest.raises(OSError, match="File too large"):
        write_atomically(path, "new" * 100)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize(
    ("content", "mended", "torn"),
    [
        ("", "", None),
        ('{"n": 1}\n', '{"n": 1}\n', None),
        ('{"n": 1}\n{"n": 2}', '{"n": 1}\n{"n": 2}\n', None),
        ('{"n": 1}\n{"n": ', '{"n": 1}\n', '{"n": \n'),
        ('{"n', "", '{"n\n'),
    ],
)
def test_a_torn_end_is_set_aside(tmp_path, content, mended, torn):
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    said = mend_end(path)
    assert path.read_text() == mended
    aside = tmp_path / "rows.jsonl.torn"
    assert (aside.read_text() if aside.exists() else None) == torn
    assert (said is None) == (torn is None)
    assert torn is None or "moved to rows.jsonl.torn" in said


@contextmanager
def another_process_writes(path: Path):
    code = "import sys; from pathlib import Path; from bench.common.files import sole_writer\n"
    code += "with sole_writer(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, **pipes)
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_process_is_refused_until_the_first_one_is_gone(
    model, questions, tmp_path, capsys
):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 0
    rows = (out / "turns.jsonl").read_text().splitlines(keepends=True)
    (out / "turns.jsonl").write_text("".join(rows[:2]))
    with another_process_writes(out / "turns.jsonl") as process:
        capsys.readouterr()
        assert bench(*basics(model, questions, out), "--decoder", "greedy") == 2
        said = capsys.readouterr().err
        assert f"is being written by process {process.pid} on " in said and said.count("\n") == 1
        assert (out / "turns.jsonl").read_text() == "".join(rows[:2])
        process.kill()  # The lock must not outlive it.
        process.wait()
        assert bench(*basics(model, questions, out), "--decoder", "greedy") == 0
    assert len(read_turns(out / "turns.jsonl")[0]) == 5


def test_two_holders_of_one_lock(tmp_path):
    path = tmp_path / "x"
    with (
        sole_writer(path),
        pytest.raises(UserError, match="is being written by process"),
        sole_writer(path),
    ):
        pass
    with sole_writer(path):
        pass


def test_a_disk_that_fills_up_costs_one_turn(model, questions, tmp_path, monkeypatch, capsys):
    assert bench(*basics(model, questions, tmp_path / "whole"), "--decoder", "greedy") == 0
    out, original = tmp_path / "run", Runner.answer
    turns = out / "turns.jsonl"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fills_up(self, *arguments):
        if turns.read_bytes().count(b"\n") == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (turns.stat().st_size + 20, limit[1]))
        return original(self, *arguments)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(Runner, "answer", fills_up)
            assert bench(*basics(model, questions, out), "--decoder", "greedy") == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = capsys.readouterr().err
    assert "cannot be written: File too large; every turn before this one is kept" in said
    assert turns.read_bytes().count(b"\n") == 2 and turns.read_bytes().endswith(b"\n")
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 0
    assert without_times(turns) == without_times(tmp_path / "whole" / "turns.jsonl")


@pytest.mark.parametrize(
    ("signals", "status", "rows"),
    [
        ([signal.SIGINT], 130, 3),
        ([signal.SIGTERM], 143, 3),
        ([signal.SIGINT] * 2, 130, 2),
        ([signal.SIGTERM] * 2, 143, 2),
    ],
)
def test_the_first_signal_waits_for_the_row_and_the_second_does_not(
    signals, status, rows, model, questions, tmp_path, monkeypatch, capfd
):
    original, calls = Runner.answer, []

    def signalled(self, *arguments) -> Turn:
        calls.append(1)
        if len(calls) == 3:
            for number in signals:
                os.kill(os.getpid(), number)
        return original(self, *arguments)

    monkeypatch.setattr(Runner, "answer", signalled)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert bench(*basics(model, questions, tmp_path / "run")) == status
    said = capfd.readouterr().err
    assert "finishing the turn" in said
    assert "every finished turn is kept. To go on: python -m bench.run" in said
    assert len(read_turns(tmp_path / "run" / "turns.jsonl")[0]) == rows
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_ends_a_session_that_tries_failed_turns_again(
    model, tmp_path, monkeypatch, capsys
):
    """Failures of the session before counted as this one's, and so the run as ended."""
    asked, out = tmp_path / "q.jsonl", tmp_path / "run"
    rows = [{"question_id": n, "category": "math", "turns": ["hi"]} for n in range(3)]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [*basics(model, asked, out), "--decoder", "greedy"]

    def fails(*given):
        raise UserError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(TurnGenerator, "generate", fails)
        assert bench(*command) == 1
    original = TurnGenerator.generate

    def signalled(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*given)

    with monkeypatch.context() as patch:
        patch.setattr(TurnGenerator, "generate", signalled)
        assert bench(*command) == 143
    assert "To go on: python -m bench.run" in capsys.readouterr().err
    turns = read_turns(out / "turns.jsonl")[0]
    assert sorted(turn.failed for turn in turns) == [False, True, True]
    assert bench(*command) == 0


def test_an_ignored_signal_stays_ignored(model, questions, tmp_path, monkeypatch):
    """A shell ignores Ctrl-C for the jobs that it starts in the background."""
    original = Runner.answer
    monkeypatch.setattr(
        Runner, "answer", lambda *given: os.kill(os.getpid(), signal.SIGINT) or original(*given)
    )
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert bench(*basics(model, questions, tmp_path / "run"), "--decoder", "greedy") == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_killed_runs_end_with_the_files_of_an_undisturbed_one():
    """The short form of scripts/kill_and_resume.py."""
    flags = "--decoder greedy,dynamic:nodes=4 --limit 2 --max-new-tokens 8 --device cpu"
    command = [sys.executable, "scripts/kill_and_resume.py", "--runs", "1", "--", *flags.split()]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert "None lost or repeated a turn" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . can't allocate memory"),
    ],
)
def test_a_turn_that_finds_no_memory_leaves_it_to_the_next(
    error, model, questions, tmp_path, monkeypatch, capsys
):
    verify, reserve, calls, capacities = Engine.verify, KVCache.reserve, [], []

    def failing(self, draft):
        calls.append(1)
        if len(calls) == 40:
            capacities.clear()
            raise error
        return verify(self, draft)

    def watched(self, slots):
        capacities.append(self.capacity)
        return reserve(self, slots)

    monkeypatch.setattr(Engine, "verify", failing)
    monkeypatch.setattr(KVCache, "reserve", watched)
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 1
    turns, _ = read_turns(out / "turns.jsonl")
    [failed] = [turn for turn in turns if turn.failed]
    assert failed.error.startswith(type(error).__name__) and "\n" not in failed.error
    assert capacities[0] == 0 and len(turns) >= 4  # The next turn found nothing left of it.
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 0


def test_a_cache_that_this_machine_cannot_hold(questions, tmp_path, capsys):
    """A real allocation that fails: the config promises a thousand billion positions."""
    write_merged(tmp_path / "endless", max_position_embeddings=1 << 42)
    arguments = basics(tmp_path / "endless", questions, tmp_path / "run")
    arguments[arguments.index("--max-new-tokens") + 1] = 10**12
    assert bench(*arguments, "--decoder", "greedy") == 1
    said = capsys.readouterr().err
    assert "all 3 turns that were tried failed, the first with: RuntimeError" in said
    assert "allocate memory" in said
    turns, _ = read_turns(tmp_path / "run" / "turns.jsonl")
    assert {turn.finish_reason for turn in turns} == {"error"}


def break_logits(lm, token: int, value: float) -> None:
    """Every row of logits whose highest is `token` becomes `value`."""

    def broken(_module, _inputs, logits):
        return logits.masked_fill(logits.argmax(-1, keepdim=True) == token, value)

    lm.get_output_embeddings().register_forward_hook(broken)


def tokens(spec, model, rule, most=40) -> list[int]:
    return tokens_of(steps_of(model, spec, most, rule))


NO_NUMBERS = pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
BY_TRANSFORMERS = [
    spec_of(name)
    for name, where in registry.BUILT_IN.items()
    if where.startswith("decoders.hf_generate")
]
OURS = [spec_of(name) for name in registry.BUILT_IN if spec_of(name) not in BY_TRANSFORMERS]


@NO_NUMBERS
@pytest.mark.parametrize("spec", OURS)
def test_logits_that_are_no_numbers_end_the_turn_where_they_come(spec, value):
    for rule in (
        Exact(),
        Sample(0.8, seed=3),
        Sample(0.8, seed=3, top_p=0.9),
        Sample(0.8, seed=3, typical=Typical()),
    ):
        model = Engine(tiny_llama(), tiny_heads())
        whole = tokens("greedy", model, rule)
        at = next(at for at in range(8, 40) if whole[at] not in whole[:at])
        if isinstance(rule, Exact):
            break_logits(model.lm, whole[at], value)
        else:  # The row that a sample comes from is known by its likeliest token.
            logits = model.lm(torch.tensor([[*PROMPT, *whole[:at]]])).logits[0, len(PROMPT) - 1 :]
            best = logits.argmax(-1).tolist()
            at = next(at for at in range(8, len(best)) if best[at] not in best[:at])
            break_logits(model.lm, best[at], value)
        assert tokens(spec, model, rule, most=at) == whole[:at]
        position = len(PROMPT) + at - 1
        with pytest.raises(NotANumber, match=f"position {position} are NaN or infinite"):
            tokens(spec, model, rule)


@NO_NUMBERS
@pytest.mark.parametrize("spec", BY_TRANSFORMERS)
def test_transformers_generate_does_not_say_so_but_its_turn_fails(spec, value):
    for rule in (Exact(), Sample(0.8, seed=3)):
        model = Engine(tiny_llama(), tiny_heads())
        whole = tokens("greedy", model, Exact())
        break_logits(model.lm, whole[12], value)
        with pytest.raises(NotANumber):
            tokens(spec, model, rule)


@NO_NUMBERS
def test_typical_acceptance_notices_them_too(value):
    model = Engine(tiny_llama(), tiny_heads())
    rule = Threshold(0.8, Typical())
    whole = tokens("greedy", model, rule)
    break_logits(model.lm, whole[12], value)
    with pytest.raises(NotANumber):
        tokens("greedy", model, rule)


def test_a_turn_of_nan_is_recorded_and_the_next_goes_on(
    model, questions, tmp_path, monkeypatch, capsys
):
    verify, calls = Engine.verify, []

    def broken(self, draft):
        rows = verify(self, draft)
        calls.append(1)
        if len(calls) == 40:
            rows.logits.fill_(float("nan"))
        return rows

    monkeypatch.setattr(Engine, "verify", broken)
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 1
    turns, _ = read_turns(out / "turns.jsonl")
    [failed] = [turn for turn in turns if turn.failed]
    assert failed.error.startswith("NotANumber: the model's logits at position")
    assert "another dtype (float32" in failed.error
    assert not turns[-1].failed


def test_a_model_of_nan_is_refused_as_what_it_is(questions, tmp_path, capsys):
    file = write_merged(tmp_path / "nan") / "model.safetensors"
    broken = {
        name: tensor if name.startswith("medusa_head.") else tensor * float("nan")
        for name, tensor in load_file(file).items()
    }
    save_file(broken, file, metadata={"format": "pt"})
    assert bench(*basics(tmp_path / "nan", questions, tmp_path / "run")) == 2
    assert "its logits are NaN; the checkpoint is damaged" in capsys.readouterr().err
