"""The embedded demo model: what is shipped, and that it decodes as promised."""

import json

import pytest
import torch
from safetensors import safe_open

from bench import metrics
from bench.inputs.chat import Chat
from bench.inputs.loader import load
from bench.inputs.questions import load_questions
from bench.running.config import RunConfig
from bench.running.decoders import make_decoders
from bench.running.jobs import Job
from bench.running.runner import Runner
from tests.helpers.paths import ROOT

DEMO = ROOT / "bench" / "inputs" / "demo"
SPECS = ("greedy", "static", "dynamic", "dynamic:nodes=16", "conditional")


@pytest.fixture(scope="module")
def runner() -> Runner:
    config = RunConfig(decoders=SPECS, temperature=0.0, max_new_tokens=96, device="cpu")
    loaded = load("demo", "cpu")
    return Runner(config, loaded, Chat.of(loaded.tokenizer), make_decoders(config))


def test_what_is_shipped():
    assert sum(file.stat().st_size for file in DEMO.iterdir()) <= 24e6
    with safe_open(DEMO / "model.safetensors", "pt") as weights:
        names = set(weights.keys())
    assert "model.embed_tokens.weight" in names and "medusa_head.3.1.weight" in names
    config = json.loads((DEMO / "config.json").read_text())
    assert config["model_type"] == "llama" and "auto_map" not in config
    card = (DEMO / "README.md").read_text()
    assert all(word in card for word in ("licen", "perplexity", "accuracy"))


def test_the_demo_is_loaded_like_any_other_checkpoint(runner):
    model = runner.loaded.model
    assert model.num_heads == 4 and model.dtype == torch.float32
    assert len(runner.decoders["static"].files["medusa_tree.json"].paths) == 255


def answers(runner: Runner, questions) -> list:
    """The turns of every decoder's answers."""
    turns = []
    for question in questions:
        for spec in runner.decoders:
            answered: list[str] = []
            for number in range(1, len(question.turns) + 1):
                turns.append(runner.answer(Job(question, 0, spec), number, answered))
                answered.append(turns[-1].text)
    return turns


def check_same_as_greedy(turns) -> None:
    by_key = {turn.key: turn for turn in turns}
    for (question_id, _, choice, number), turn in by_key.items():
        assert not turn.failed, turn.error
        assert turn.token_ids == by_key[question_id, "greedy", choice, number].token_ids, turn.key


def test_on_the_sample_questions(runner):
    """One question of each category, both turns: greedy's tokens, in fewer steps."""
    turns = answers(runner, load_questions("sample").questions[::3])
    check_same_as_greedy(turns)
    frame = metrics.frame(turns)
    tpi = {spec: metrics.tokens_per_inference(frame[frame.decoder == spec]) for spec in SPECS}
    assert tpi["greedy"] == 1.0
    assert tpi["dynamic"] > tpi["static"] > 1.5
    assert tpi["dynamic"] > tpi["dynamic:nodes=16"] > 1.5
    # It is so good only where it learns from every step, and knows the token before the root.
    assert tpi["conditional"] == pytest.approx(3.570, rel=0.005)


def test_on_the_real_mt_bench(runner, mt_bench):
    questions = load_questions(str(mt_bench / "question.jsonl")).questions
    check_same_as_greedy(answers(runner, questions[5::10]))
