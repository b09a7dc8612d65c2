"""Chat JSONL."""

import gzip
import json
import re

import pytest

import train_heads
from bench.common.errors import UserError
from bench.inputs.chat import Chat
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import script
from tests.helpers.models import tiny_tokenizer
from training import json_array
from training.corpus import corpus_examples, numbered_examples, read_chats, read_examples


def test_a_corpus_line_that_is_no_chat_is_named(tmp_path, capsys):
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text('{"turns": []}\n{"turns": [{"role": "system", "content": "x"}]}\n')
    with pytest.raises(UserError, match="line 2: a system message is all it has; expected"):
        list(read_chats(corpus))
    write_base(tmp_path / "base")
    arguments = ["--model", tmp_path / "base", "--corpus", corpus, "--out", tmp_path / "out"]
    assert script(train_heads.main, *arguments, "--device", "cpu") == 2
    assert "line 2: a system message is all it has; expected" in capsys.readouterr().err


def test_every_answer_is_an_example_after_its_own_prompt(tmp_path):
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
    corpus.write_text(2 * (json.dumps({"turns": turns}) + "\n"))
    assert [number for number, _ in numbered_examples(corpus, chat)] == [0, 0, 1, 1]


SHARE = {
    "id": "x",
    "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}],
}
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SYSTEM = [{"role": "system", "content": "be kind"}]
LAYOUTS = {
    "own": {"source": "s", "turns": MESSAGES},
    "ShareGPT": SHARE,
    "messages": {"messages": MESSAGES},
    "a list": MESSAGES,
    "with a system message": {"messages": SYSTEM + MESSAGES},
    "nulls, as tables export them": {
        "source": None,
        "turns": None,
        "conversations": [
            {"role": None, "content": None, **turn} for turn in SHARE["conversations"]
        ],
    },
}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["corpus.json", "corpus.json.gz"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_of_a_conversation_is_read(layout, name, indent, tmp_path):
    """A row a line, and one array of rows."""
    row = LAYOUTS[layout]
    lines = "".join(json.dumps(row) + "\n" for _ in range(3))
    for text in (lines, json.dumps([row] * 3, indent=indent)):
        content = text.encode()
        corpus = tmp_path / name
        corpus.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        assert [turns for _, turns in read_chats(corpus)] == [MESSAGES] * 3


def test_an_array_is_read_in_pieces(tmp_path, monkeypatch):
    """Wherever a piece ends, in a word, an escape or a character of several bytes."""
    texts = ['a "quoted" \\ text', "漢字 😀", "]},{[", "x" * 50]
    rows = [{"turns": [{"role": "user", "content": text}]} for text in texts]
    corpus = tmp_path / "corpus.json"
    for ascii_only in (True, False):
        corpus.write_text(json.dumps(rows, indent=1, ensure_ascii=ascii_only), encoding="utf-8")
        for piece in (1, 2, 3, 7, 64):
            monkeypatch.setattr(json_array, "CHUNK", piece)
            assert [turns[0]["content"] for _, turns in read_chats(corpus)] == texts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"turns": []}, {"turns": [], }, {"turns": []}, {"turns": []}]', "element 2 is not JSON"),
        ('[{"turns": []}, {"turns": [', "element 2 is not JSON: the file is cut off"),
        ('[{"turns": []}', "the file is cut off"),
        ('[{"turns": []}, 7]', "element 2: expected an object or a list"),
        ('[{"turns": []}, {"turns": 7}]', "element 2: it has no list of turns; expected"),
        ('[{"turns": []}]\n{"turns": []}', "goes on after the end of its array"),
        ("[" * 100_000, "nested too deeply|not JSON"),
    ],
)
def test_an_array_that_is_none_is_told(text, says, tmp_path):
    corpus = tmp_path / "corpus.json"
    corpus.write_text(text)
    with pytest.raises(UserError, match=says):
        list(read_chats(corpus))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"source": 7, "turns": []}, "its source is no text"),
        ({"text": "hi"}, "it has no list of turns"),
        ({"turns": [*MESSAGES, "bye"]}, "turn 3: it is no object"),
        ({"turns": [{"role": "tool", "content": "x"}]}, "turn 1: its role is 'tool', not one of"),
        ({"turns": [{"role": "user", "content": None}]}, "turn 1: its content is None, not a text"),
        ({"turns": MESSAGES + SYSTEM}, "turn 3: its role is system, which only the first may have"),
    ],
)
def test_a_row_that_is_no_conversation_is_told_why(row, says, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"turns": MESSAGES}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=f"line 2: {says}.*; expected"):
        list(read_chats(corpus))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({}, "it is {}"),
        ([[1, 2, 3.5], 1], "3.5 is no token of this model"),
        ([[1, 2, 50], 1], "50 is no token of this model"),
        ([[1, 2, 3], 3], "the answer cannot begin at 3 of 3 tokens"),
    ],
)
def test_a_row_that_is_no_example_is_told_why(row, says, tmp_path):
    answers = tmp_path / "answers.jsonl"
    answers.write_text("[[1, 2, 3], 1]\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=f"line 2: {re.escape(says)}; expected"):
        list(read_examples(answers, vocab=50))


def test_turns_out_of_order_are_not_taken_for_answers(tmp_path):
    """The first answer stands before any question; the last two questions follow each other."""
    chat = Chat.of(tiny_tokenizer())
    names = {"u": "human", "a": "gpt"}
    turns = [{"from": names[kind], "value": text} for kind, text in ("aX", "uq", "ab", "uc", "ud")]
    corpus = tmp_path / "share.jsonl"
    corpus.write_text(json.dumps({"conversations": turns}) + "\n")
    ((ids, start),) = corpus_examples(corpus, chat)
    assert chat.tokenizer.decode(ids[:start]) == "<s>u:q\na:"
    assert chat.tokenizer.decode(ids[start:]) == "b</s>"


def test_answers_end_as_the_template_ends_them(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|im_end|>"])
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    corpus = tmp_path / "chat.jsonl"
    corpus.write_text(json.dumps({"turns": MESSAGES}) + "\n")
    ((ids, start),) = corpus_examples(corpus, Chat.of(tokenizer))
    assert tokenizer.decode(ids[start:]) == "hello<|im_end|>"


def test_without_an_end_token_nothing_is_appended(tmp_path):
    """An empty answer is no example then."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    corpus = tmp_path / "chat.jsonl"
    empty = [MESSAGES[0], {"role": "assistant", "content": ""}]
    corpus.write_text(json.dumps(MESSAGES) + "\n" + json.dumps(empty) + "\n")
    ((ids, start),) = corpus_examples(corpus, Chat.of(tokenizer))
    assert tokenizer.decode(ids[start:]) == "hello"
