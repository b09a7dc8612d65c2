"""Conversations as prompts, and tokens as text."""

import random
from itertools import accumulate

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from bench.common.errors import UserError
from bench.inputs.chat import Chat
from bench.inputs.templates import check_template
from tests.helpers.models import tiny_tokenizer
from tests.helpers.paths import ROOT

DEMO = ROOT / "bench" / "inputs" / "demo"


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


def test_an_empty_answer_ends_its_turn_in_a_fastchat_template_too():
    """FastChat takes an empty message for one that is still to come, and writes no end after it."""
    tokenizer = tiny_tokenizer()
    text = Chat.of(tokenizer, "vicuna_v1.1").prompt_text(["hi", "more"], [""])
    assert text.endswith("USER: hi ASSISTANT:  </s>USER: more ASSISTANT:")


@pytest.mark.parametrize("template", ["gemini", "bard", "chatgpt", "steerlm"])
def test_templates_of_services_make_no_prompt(template):
    with pytest.raises(UserError, match="of a service that is sent messages"):
        check_template(template)


def test_a_stop_string_of_many_tokens_is_found():
    """Characters outside ASCII take several tokens each."""
    tokenizer, stop = AutoTokenizer.from_pretrained(DEMO), "<｜end▁of▁sentence｜>"
    chat = Chat(tokenizer, "chat", (stop,), frozenset())
    ids = tokenizer(f"ab{stop}", add_special_tokens=False).input_ids
    assert len(ids) > len(stop) and chat.stops(ids) and not chat.stops(ids[:-1])


def test_no_template_is_guessed():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="--template vicuna"):
        Chat.of(tokenizer)
    with pytest.raises(UserError, match="did you mean"):
        Chat.of(tokenizer, "vicuna")


def test_a_stop_string_is_found_at_its_first_token_and_at_position_0():
    """Predecessors wrote `find(stop) > 0`, which misses it there."""
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


def spaced_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama's: a word's token begins with its space, which is dropped where a text begins."""
    words = ["<unk>", "</s>", "▁one", "▁two", "▁three", "!"]
    vocab = {word: at for at, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    made.chat_template = "{{ messages }}"
    return made


def split(count: int, rng: random.Random) -> list[int]:
    """Random accept lengths of steps that commit `count` tokens."""
    cuts = sorted(rng.sample(range(1, count), rng.randrange(min(count - 1, 12))))
    return [b - a for a, b in zip([0, *cuts], [*cuts, count], strict=True)]


def test_step_ends_by_hand():
    chat = Chat.of(spaced_tokenizer())
    assert chat.text([2, 3, 5, 4, 1]) == "one two! three"
    assert chat.step_ends([2, 3, 5, 4, 1], [1, 2, 1, 1]) == [3, 8, 14, 14]
    assert chat.step_ends([], []) == []


def test_step_ends_are_where_a_longer_decode_says():
    """Compared with decoding all tokens so far, where steps may cut characters apart."""
    rng = random.Random(0)
    chat = Chat.of(AutoTokenizer.from_pretrained(DEMO))
    pieces = ["a", " word", "\n", "é", "漢", "😀", "👩‍🚀", "<b>", "  "]
    for _ in range(200):
        text = "".join(rng.choice(pieces) for _ in range(rng.randrange(2, 30)))
        ids = chat.tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) < 2:
            continue
        lengths = split(len(ids), rng)
        lead = len(text) - len(text.lstrip())
        seen = [
            len(chat.tokenizer.decode(ids[:n]).rstrip("\ufffd")) - lead for n in accumulate(lengths)
        ]
        expected = [min(max(n, 0), len(text.strip())) for n in seen]
        assert chat.step_ends(ids, lengths) == expected, (text, lengths)
    assert any(len(chat.tokenizer(c, add_special_tokens=False).input_ids) > 1 for c in "漢😀")


def test_step_ends_stop_with_the_text():
    chat = Chat(tiny_tokenizer(), "chat", ("##",), frozenset())
    ids = chat.tokenizer("ab##cd", add_special_tokens=False).input_ids
    assert chat.text(ids) == "ab" and chat.step_ends(ids, [1, 2, 3]) == [1, 2, 2]


def test_step_ends_of_bytes_that_are_no_character():
    chat = Chat.of(AutoTokenizer.from_pretrained(DEMO))
    broken = chat.tokenizer("😀", add_special_tokens=False).input_ids[:1]
    ids = [*broken, *broken, *chat.tokenizer("ok", add_special_tokens=False).input_ids, *broken]
    ends = chat.step_ends(ids, [1] * len(ids))
    assert ends == sorted(ends) and ends[-1] == len(chat.text(ids)) and ends[0] == 0


def with_specials(around: str) -> PreTrainedTokenizerFast:
    """A tokenizer that puts special tokens around every text."""
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.post_processor = processors.TemplateProcessing(
        single=around, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return tokenizer


@pytest.mark.parametrize("template", ["vicuna_v1.1", "llama-2", "qwen-7b-chat", None])
@pytest.mark.parametrize("around", ["<s> $A </s>", "$A </s>", "<s> $A"])
def test_a_prompt_is_not_ended_by_the_tokenizer(around, template):
    """Fine-tunes keep `add_eos_token` from their training: the prompt then ended in </s>."""
    tokenizer = with_specials(around)
    prompt = Chat.of(tokenizer, template).prompt(["hi"], [])
    assert prompt[-1] != 2
    begins = around.startswith("<s>") or template is None
    assert prompt.count(1) == begins and (prompt[0] == 1) == begins


def test_a_template_that_begins_the_text_itself_begins_it_once():
    tokenizer = with_specials("<s> $A")
    chat = Chat(tokenizer, "vicuna_v1.1", (), frozenset())
    for text in ("<s>hi", "hi"):
        ids = chat._encoded(text)
        assert tokenizer.decode(ids) == "<s>hi" and ids.count(1) == 1


@pytest.mark.parametrize("clean_up", [False, True])
def test_no_space_of_an_answer_is_cleaned_up(clean_up):
    words = ["<unk>", "</s>", "a", "!=", "b", ".", "n't", "'s"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="</s>",
        clean_up_tokenization_spaces=clean_up,
        chat_template="{{ messages }}",
    )
    chat = Chat.of(made)
    assert chat.text([2, 3, 4, 5, 2, 6, 7]) == "a != b . a n't 's"
    assert chat.step_ends([2, 3, 4, 5], [2, 2]) == [4, 8]


def test_the_token_that_ends_an_answer_is_not_in_its_text():
    """It need not be a special one, which decoding leaves out."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<|im_end|>"])
    chat = Chat(tokenizer, "chat", (), frozenset({tokenizer.convert_tokens_to_ids("<|im_end|>")}))
    ids = chat.tokenizer("yes<|im_end|>", add_special_tokens=False).input_ids
    assert chat.text(ids) == "yes" and chat.step_ends(ids, [2, 2]) == [2, 3]


def test_a_special_token_inside_an_answer_is_named():
    """Texts leave it out, wherever it stands."""
    chat = Chat.of(tiny_tokenizer())
    assert chat.special_inside([5, 1, 6, 2]) == "<s>" and chat.text([5, 1, 6, 2]) == '"#'
    assert chat.special_inside([5, 6, 2]) is None and chat.special_inside([]) is None
