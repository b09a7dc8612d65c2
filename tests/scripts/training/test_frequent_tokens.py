"""The draft vocabulary."""

import json
from collections import Counter

import draft_vocabulary

from bench.inputs.loader import load
from bench.running.decoders import bind, make_decoder
from decoders.draft_vocabulary import FILE
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.commands import script
from training.frequent_tokens import most_frequent


def test_shares_are_summed():
    counts = [Counter({7: 3, 5: 1}), Counter({5: 10, 9: 10})]
    assert most_frequent(counts, 3) == [5, 7, 9]


def test_the_script_writes_what_decoders_read(short_corpus, tmp_path, capsys):
    folder = write_merged(tmp_path / "m")
    arguments = ["--model", folder, "--corpus", short_corpus, "--out", folder, "--device", "cpu"]
    few = ["--prompts", 4, "--new-tokens", 20, "--size", 40]
    assert script(draft_vocabulary.main, *arguments, *few) == 0
    assert "40 tokens are" in capsys.readouterr().out
    written = json.loads((folder / FILE).read_text())["tokens"]
    assert len(set(written)) == 40
    text = "dynamic:vocab=frequent"
    decoder = bind(text, make_decoder(text), load(str(folder), device="cpu"))
    assert decoder.files[FILE] == written
    assert script(draft_vocabulary.main, *arguments, "--size", 10**6) == 2
    assert "--size is 1000000, but the vocabulary has 101 tokens" in capsys.readouterr().err


def test_a_model_needs_no_medusa_heads(short_corpus, tmp_path):
    """Hydra's and EAGLE's may guess from the tokens, too."""
    base = write_base(tmp_path / "base")
    arguments = ["--model", base, "--corpus", short_corpus, "--out", tmp_path, "--device", "cpu"]
    few = ["--prompts", 4, "--new-tokens", 20, "--size", 40]
    assert script(draft_vocabulary.main, *arguments, *few) == 0
    assert (tmp_path / FILE).exists()
