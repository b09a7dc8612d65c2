"""The demo's tokenizer and base model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import train_demo

from bench.common.errors import UserError
from bench.inputs.loader import load
from tests.helpers.commands import script
from tests.helpers.models import tiny_tokenizer
from training import demo_training
from training.checkpoints import Checkpoint
from training.packed_corpus import PackedCorpus, pack


def small(corpus: Path, out: Path) -> list[object]:
    """The arguments of a training that takes a second."""
    return [
        "--corpus", corpus, "--heldout", corpus, "--out", out, "--vocab", 300, "--layers", 1,
        "--hidden", 32, "--context", 64, "--seq", 32, "--batch-tokens", 256, "--no-compile",
        "--device", "cpu",
    ]  # fmt: skip


def test_train_demo_makes_a_model_that_loads_and_resumes(corpus, tmp_path):
    out = tmp_path / "demo"
    arguments = small(corpus, out)
    assert script(train_demo.main, *arguments, "--tokens", 1024) == 0
    first = json.loads((out / "base_result.json").read_text())
    assert first["tokens"] == 1024
    assert script(train_demo.main, *arguments, "--tokens", 40_000, "--device", "auto") == 0
    second = json.loads((out / "base_result.json").read_text())
    assert second["tokens"] >= 40_000 and second["heldout_loss_nats"] < first["heldout_loss_nats"]
    loaded = load(str(out / "base"), device="cpu")
    text = "def f(x):\n    return 2 ** x  # 😀"
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    assert loaded.model.context == 64


def test_batches_go_on_where_a_session_stopped():
    tokens = np.arange(20, dtype=np.uint16)
    corpus = PackedCorpus(tokens, np.arange(0, 21, 2), np.ones(10))
    source = corpus.batches(seed=0, batch_tokens=6, seen=0)  # Three batches an epoch.
    first = [next(source).tolist() for _ in range(8)]
    for done in range(8):
        again = corpus.batches(seed=0, batch_tokens=6, seen=6 * done)
        assert next(again).tolist() == first[done]
    with pytest.raises(UserError, match="has 20 tokens, fewer than --batch-tokens 21"):
        next(corpus.batches(seed=0, batch_tokens=21, seen=0))


def test_an_epoch_may_lack_every_conversation_and_held_out_text_lacks_none():
    tokens = np.arange(20, dtype=np.uint16)
    corpus = PackedCorpus(tokens, np.arange(0, 21, 2), np.zeros(10))
    with pytest.raises(UserError, match="has 0 tokens, fewer than --batch-tokens 2"):
        next(corpus.batches(seed=0, batch_tokens=2, seen=0))
    assert sorted(corpus.each_once().tolist()) == tokens.tolist()


def test_a_row_without_turns_is_no_conversation(short_corpus, tmp_path):
    rows = short_corpus.read_text()
    short_corpus.write_text('{"turns": []}\n' + rows)
    assert len(pack(short_corpus, tiny_tokenizer(), tmp_path / "corpus.npz").weight) == 8
    short_corpus.write_text('{"turns": []}\n')
    with pytest.raises(UserError, match="has no conversation in it"):
        pack(short_corpus, tiny_tokenizer(), tmp_path / "empty.npz")


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(corpus, tmp_path, monkeypatch):
    def train(name: str) -> int:
        return script(train_demo.main, *small(corpus, tmp_path / name), "--tokens", 2048)

    def save_and_stop(checkpoint: Checkpoint, state: dict) -> None:
        save(checkpoint, state)
        raise KeyboardInterrupt

    save = Checkpoint.save
    assert train("whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(demo_training, "SAVE_EVERY_S", 0.0)  # After the first batch.
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert train("parts") == 130
    assert train("parts") == 0
    whole, parts = (
        torch.load(tmp_path / name / "train_state.pt", weights_only=True)
        for name in ("whole", "parts")
    )
    assert whole["seen"] == parts["seen"] == 2048
    assert all(torch.equal(weight, parts["model"][name]) for name, weight in whole["model"].items())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--batch-tokens", 96), "--batch-tokens 96 is not a multiple of --context 64"),
        (("--seq", 48), "--batch-tokens 256 is not a multiple of --seq 48"),
        (("--vocab", 65_537), "--vocab is 65537; expected at most 65536"),
        (("--hidden", 36), "--hidden is 36; expected a multiple of 8"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--device", "balanced"), "'balanced' means several devices; expected one"),
    ],
)
def test_what_cannot_be_trained_is_said_first(arguments, says, corpus, tmp_path, capsys):
    assert script(train_demo.main, *small(corpus, tmp_path / "out"), *arguments) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_held_out_text_shorter_than_a_row_is_said_before_the_training(corpus, tmp_path, capsys):
    heldout = tmp_path / "heldout.jsonl"
    heldout.write_text('{"turns": [{"role": "user", "content": "hi"}]}\n')
    out = tmp_path / "out"
    assert script(train_demo.main, *small(corpus, out), "--heldout", heldout) == 2
    assert "tokens, fewer than a row of --seq 32" in capsys.readouterr().err
    assert not (out / "train_state.pt").exists()
