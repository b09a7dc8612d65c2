"""The loss on held-out conversations."""

import json
import math

import perplexity
import pytest

from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script
from tests.helpers.models import tiny_llama, tiny_tokenizer


def test_perplexity_of_a_model_that_knows_nothing(short_corpus, tmp_path, capsys):
    """All logits equal: the perplexity is the size of the vocabulary."""
    lm = load(str(write_base(tmp_path)), device="cpu").model.lm
    lm.get_output_embeddings().weight.zero_()
    lm.save_pretrained(tmp_path)
    arguments = ["--model", tmp_path, "--corpus", short_corpus, "--device", "cpu"]
    assert script(perplexity.main, *arguments) == 0
    assert f"{math.log(101):.4f} nats a token, perplexity 101.00" in capsys.readouterr().out


def test_no_more_of_a_corpus_is_read_than_the_limit(short_corpus, tmp_path):
    with short_corpus.open("a") as more:
        more.write("not read\n")
    arguments = ["--model", write_base(tmp_path), "--corpus", short_corpus, "--device", "cpu"]
    assert script(perplexity.main, *arguments, "--limit", 8) == 0


CONTENTS = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "content", "says"),
    [
        (None, "hi", "has no chat template, through which conversations are read"),
        ("{{ raise_exception('who?') }}", "hi", "cannot be filled in: TemplateError: who?"),
        (CONTENTS, "", "has no conversation with text"),
        (CONTENTS, "h", "has no conversation with text"),  # Nothing is predicted.
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(template, content, says, tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"turns": [{"role": "user", "content": content}]}) + "\n")
    arguments = ["--model", tmp_path, "--corpus", corpus, "--device", "cpu"]
    assert script(perplexity.main, *arguments) == 2
    assert says in capsys.readouterr().err
