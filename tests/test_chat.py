import pytest

from bench.chat import Chat
from bench.errors import UserError
from tests.conftest import tiny_tokenizer


def test_the_tokenizers_own_template():
    tokenizer = tiny_tokenizer()
    prompt = Chat.of(tokenizer).prompt(["hi", "more"], ["yes"])
    assert tokenizer.decode(prompt) == "<s>u:hi\na:yes\nu:more\na:"
    assert prompt.count(tokenizer.bos_token_id) == 1


def test_a_fastchat_template_by_name():
    tokenizer = tiny_tokenizer()
    chat = Chat.of(tokenizer, "vicuna_v1.1")
    text = tokenizer.decode(chat.prompt(["hi", "more"], ["yes"]))
    assert "USER: hi ASSISTANT: yes" in text and text.endswith("USER: more ASSISTANT:")


def test_no_template_is_guessed():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="--template vicuna"):
        Chat.of(tokenizer)
    with pytest.raises(UserError, match="did you mean"):
        Chat.of(tokenizer, "vicuna")


def test_a_stop_string_is_found_at_its_first_token_and_at_position_0():
    """`find(stop) > 0` misses it there."""
    tokenizer = tiny_tokenizer()
    chat = Chat(tokenizer, "chat", ("###",), frozenset())
    ids = tokenizer("ab###cd", add_special_tokens=False).input_ids
    assert [chat.stops(ids[:n]) for n in range(1, 6)] == [False, False, False, False, True]
    assert chat.text(ids) == "ab"
    assert chat.text(tokenizer("###cd", add_special_tokens=False).input_ids) == ""


def test_a_template_that_refuses_is_an_error_of_the_user():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no second turn') }}"
    with pytest.raises(UserError, match="no second turn"):
        Chat.of(tokenizer).prompt(["a", "b"], ["c"])
