"""The demo's tokenizer and base model."""

import json

import numpy as np
import pytest
import train_demo

from bench.common.errors import UserError
from bench.inputs.loader import load
from tests.helpers.commands import script
from training.packed_corpus import PackedCorpus


def test_train_demo_makes_a_model_that_loads_and_resumes(corpus, tmp_path):
    out = tmp_path / "demo"
    arguments = [
        "--corpus", corpus, "--heldout", corpus, "--out", out, "--vocab", 300, "--layers", 1,
        "--hidden", 32, "--context", 64, "--seq", 32, "--batch-tokens", 256, "--no-compile",
        "--device", "cpu",
    ]  # fmt: skip
    assert script(train_demo.main, *arguments, "--tokens", 1024) == 0
    first = json.loads((out / "base_result.json").read_text())
    assert first["tokens"] == 1024
    assert script(train_demo.main, *arguments, "--tokens", 40_000) == 0
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
