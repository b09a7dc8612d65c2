"""What a turn's times are: everything between prefill's end and the last step, and nothing else.

The clock is a fake one, which only the model's work moves.
"""

import time

import pytest
import torch

from bench.inputs.chat import Chat
from bench.inputs.questions import load_questions
from bench.running import clock
from bench.running.config import RunConfig
from bench.running.jobs import jobs
from bench.running.runner import Runner
from decoders.engine.engine import Engine

PREFILL_S, STEP_S, OTHER_S = 1000.0, 7.0, 1e6


def test_the_clock_is_read_when_the_device_has_finished(monkeypatch):
    """A GPU works on after the host has asked it to. Its time would be the next turn's."""
    order = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: order.append(device.type))
    monkeypatch.setattr(time, "perf_counter", lambda: order.append("read") or 5.0)
    assert clock.now(torch.device("cuda")) == 5.0 and order == ["cuda", "read"]
    assert clock.now(torch.device("cpu")) == 5.0 and order == ["cuda", "read", "read"]


@pytest.fixture
def readings(monkeypatch) -> list[torch.device]:
    """The devices that the fake clock waited for."""
    passed, readings = [0.0], []

    def taking(seconds: float, original):
        def call(*args, **options):
            passed[0] += seconds
            return original(*args, **options)

        return call

    def now(device: torch.device) -> float:
        readings.append(device)
        return passed[0]

    monkeypatch.setattr("bench.running.turn_generator.now", now)
    monkeypatch.setattr(Engine, "prefill", taking(PREFILL_S, Engine.prefill))
    monkeypatch.setattr(Engine, "verify", taking(STEP_S, Engine.verify))
    for name in ("prompt", "text", "step_ends"):
        monkeypatch.setattr(Chat, name, taking(OTHER_S, getattr(Chat, name)))
    return readings


@pytest.mark.parametrize("spec", ["greedy", "static", "dynamic", "conditional"])
def test_decode_s_is_what_lies_between_prefill_and_the_last_step(spec, model, questions, readings):
    config = RunConfig((spec,), model, questions, device="cpu", max_new_tokens=20)
    runner = Runner.load(config)
    asked = load_questions(questions).questions
    runner.warm_up(asked)
    readings.clear()
    turns = list(runner.answers(jobs(config, asked), lambda: False))
    assert len(turns) == 5
    for turn in turns:
        assert turn.prefill_s == PREFILL_S
        assert turn.decode_s == STEP_S * len(turn.accept_lengths) > 0
    assert readings == [runner.loaded.model.device] * 3 * len(turns)
