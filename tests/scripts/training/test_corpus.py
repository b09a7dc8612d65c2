"""Chat JSONL."""

import json

import pytest

import train_heads
from bench.common.errors import UserError
from bench.inputs.chat import Chat
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script
from tests.helpers.models import tiny_tokenizer
from training.corpus import corpus_examples, read_chats


def test_a_corpus_line_that_is_no_chat_is_named(tmp_path, capsys):
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text('{"turns": []}\n{"turns": [{"role": "system", "content": "x"}]}\n')
    with pytest.raises(UserError, match="line 2: expected"):
        list(read_chats(corpus))
    write_base(tmp_path / "base")
    arguments = ["--model", tmp_path / "base", "--corpus", corpus, "--out", tmp_path / "out"]
    assert script(train_heads.main, *arguments, "--device", "cpu") == 2
    assert "line 2: expected" in capsys.readouterr().err


def test_every_answer_is_an_example_behind_its_own_prompt(tmp_path):
    chat = Chat.of(tiny_tokenizer())
    contents = ["a", "b", "c", "d", "e"]  # The last one is not answered.
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": content}
        for number, content in enumerate(contents)
    ]
    corpus = tmp_path / "chat.jsonl"
    corpus.write_text(json.dumps({"turns": turns}) + "\n")
    texts = [
        (chat.tokenizer.decode(ids[:start]), chat.tokenizer.decode(ids[start:]))
        for ids, start in corpus_examples(corpus, chat)
    ]
    assert texts == [("<s>u:a\na:", "b</s>"), ("<s>u:a\na:b\nu:c\na:", "d</s>")]
