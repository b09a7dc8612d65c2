"""Teaching a model not to loop."""

import json

import pytest
import torch
import unlearn_loops

from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script
from training.loops import losses


def test_unlearning_lowers_the_probability_of_repeats(short_corpus, tmp_path):
    base, out = write_base(tmp_path / "base"), tmp_path / "out"
    arguments = [
        "--model", base, "--corpus", short_corpus, "--out", out, "--device", "cpu", "--batch", 2,
        "--new-tokens", 24, "--ngram", 1, "--lr", 0.01, "--weight", 1, "--updates", 2,
    ]  # fmt: skip
    assert script(unlearn_loops.main, *arguments) == 0
    result = json.loads((out / "unlearn_result.json").read_text())
    assert result["before"]["repeated_ngrams"] > 0 and result["before"] != result["after"]
    assert load(str(out / "base"), device="cpu").model.num_heads == 0


def test_both_losses_by_hand(tmp_path):
    lm = load(str(write_base(tmp_path / "base")), device="cpu").model.lm
    rows = [([5, 6, 5, 6], [False, False, True, True])]
    log_prob = lm(torch.tensor([[5, 6, 5, 6]])).logits[0, :-1].log_softmax(-1)
    likelihood, unlikelihood = losses(lm, rows)
    own = log_prob[[0, 1, 2], [6, 5, 6]]
    assert likelihood.item() == pytest.approx(-own.mean().item(), rel=0.03)  # Bfloat16 products.
    expected = -torch.log(1 - own[1:].exp()).mean().item()
    assert unlikelihood.item() == pytest.approx(expected, rel=0.1, abs=1e-3)
