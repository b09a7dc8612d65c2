"""Teaching a model not to loop."""

import json

import pytest
import torch
import unlearn_loops

from bench.inputs.chat import Chat
from bench.inputs.loader import load
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script
from tests.helpers.models import tiny_tokenizer
from training.corpus import corpus_examples
from training.loops import losses, repeats


def repeating_answers(base, corpus) -> list:
    """The greedy answers of a model, with its repeats marked."""
    loaded = load(str(base), device="cpu")
    rows = []
    for ids, start in corpus_examples(corpus, Chat.of(loaded.tokenizer)):
        prompt = torch.tensor([ids[:start]])
        text = loaded.model.lm.generate(prompt, max_new_tokens=24, do_sample=False)[0].tolist()
        rows.append((text, [False] * start + repeats(text[start:], 1)))
    return rows


def test_unlearning_lowers_the_probability_of_repeats(short_corpus, tmp_path):
    base, out = write_base(tmp_path / "base"), tmp_path / "out"
    arguments = [
        "--model", base, "--corpus", short_corpus, "--out", out, "--device", "cpu", "--batch", 2,
        "--new-tokens", 24, "--ngram", 1, "--lr", 0.01, "--weight", 1, "--updates", 2,
    ]  # fmt: skip
    assert script(unlearn_loops.main, *arguments) == 0
    result = json.loads((out / "unlearn_result.json").read_text())
    assert result["before"]["repeated_ngrams"] > 0 and result["before"] != result["after"]
    rows = repeating_answers(base, short_corpus)
    before, after = (load(str(each), device="cpu").model for each in (base, out / "base"))
    with torch.no_grad():
        assert losses(after.lm, rows)[1] < losses(before.lm, rows)[1]
    assert after.num_heads == 0


def test_both_losses_by_hand(tmp_path):
    lm = load(str(write_base(tmp_path / "base")), device="cpu").model.lm
    rows = [([5, 6, 5, 6], [False, False, True, True])]
    log_prob = lm(torch.tensor([[5, 6, 5, 6]])).logits[0, :-1].log_softmax(-1)
    likelihood, unlikelihood = losses(lm, rows)
    own = log_prob[[0, 1, 2], [6, 5, 6]]
    assert likelihood.item() == pytest.approx(-own.mean().item(), rel=0.03)  # Bfloat16 products.
    expected = -torch.log(1 - own[1:].exp()).mean().item()
    assert unlikelihood.item() == pytest.approx(expected, rel=0.1, abs=1e-3)


def test_a_model_without_an_end_token_and_its_own_folder_as_out(short_corpus, tmp_path, capsys):
    """What its generation_config.json asks for is not obeyed, and kept."""
    base, tokenizer = write_base(tmp_path / "base", eos_token_id=None), tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    (base / "generation_config.json").write_text('{"temperature": 0.6, "repetition_penalty": 9.0}')
    arguments = [
        "--model", base, "--corpus", short_corpus, "--device", "cpu", "--batch", 2,
        "--new-tokens", 24, "--updates", 1, "--out",
    ]  # fmt: skip
    assert script(unlearn_loops.main, *arguments, base) == 2
    assert "base is the model's own folder" in capsys.readouterr().err
    out = tmp_path / "out"
    assert script(unlearn_loops.main, *arguments, out) == 0
    before = json.loads((out / "unlearn_result.json").read_text())["before"]
    assert before["unended_answers"] == 1 and before["tokens_per_answer"] == 24
    saved = json.loads((out / "base" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["repetition_penalty"]) == (0.6, 9.0)


def test_prompts_are_not_cut(short_corpus, tmp_path, capsys):
    arguments = [
        "--model",
        write_base(tmp_path / "base"),
        "--corpus",
        short_corpus,
        "--device",
        "cpu",
    ]
    lengths = ["--max-prompt", 100, "--max-length", 100, "--out", tmp_path / "out"]
    assert script(unlearn_loops.main, *arguments, *lengths) == 2
    assert "--max-prompt is 100; expected less than --max-length, 100" in capsys.readouterr().err
