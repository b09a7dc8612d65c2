"""The loss on held-out conversations."""

import math

import perplexity

from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script


def test_perplexity_of_a_model_that_knows_nothing(short_corpus, tmp_path, capsys):
    """All logits equal: the perplexity is the size of the vocabulary."""
    lm = load(str(write_base(tmp_path)), device="cpu").model.lm
    lm.get_output_embeddings().weight.zero_()
    lm.save_pretrained(tmp_path)
    arguments = ["--model", tmp_path, "--corpus", short_corpus, "--device", "cpu"]
    assert script(perplexity.main, *arguments) == 0
    assert f"{math.log(101):.4f} nats a token, perplexity 101.00" in capsys.readouterr().out
