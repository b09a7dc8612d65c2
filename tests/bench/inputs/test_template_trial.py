"""What templates and tokenizers do to a prompt, unseen, and where a template ends an answer."""

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from bench.common.errors import UserError
from bench.inputs.chat import Chat
from bench.inputs.template_trial import ends_turns
from tests.helpers.models import tiny_tokenizer

TURNS = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ end }}{% endfor %}"
PARTS = "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"


def with_template(template: str | dict, tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """The tiny tokenizer with a template, and with further tokens that are not special."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(tokens))
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_that_takes_content_as_parts_gets_parts():
    """It dropped every question: a text has no parts of type text."""
    template = "{% for m in messages %}" + PARTS + "{% endfor %};{% endfor %}a:"
    tokenizer = with_template(template)
    chat = Chat.of(tokenizer)
    assert chat.takes_parts and list(chat.check()) == []
    assert tokenizer.decode(chat.prompt(["hi", "more"], ["yes"])) == "hi;yes;more;a:"
    either = "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    both = "{% for m in messages %}" + either + PARTS + "{% endfor %}{% endif %}{% endfor %}"
    assert not Chat.of(with_template(both)).takes_parts
    fails_on_text = "{% for m in messages %}{{ m['content'][0]['text'] + ';' }}{% endfor %}"
    assert Chat.of(with_template(fails_on_text)).prompt_text(["hi"], []) == "hi;"


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("hello", "leaves the question out"),
        ("{{ messages[0]['content'] | upper }}", "leaves the question out"),
        ("{{ messages[0]['content'] }}", "leaves the question out"),
        ("{{ messages[0]['content'] }}{{ tools | length }}", "TypeError: .* has no len"),
        ("{{ raise_exception('no user') }}", "refuses the conversation: no user"),
    ],
)
def test_a_prompt_without_the_question_is_refused(template, says):
    """The third has the first question alone, also in the second turn."""
    with pytest.raises(UserError, match=says):
        list(Chat.of(with_template(template)).check())


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{{ messages[-1]['content'] }}",
            ["'Name the first", "colours is red' 0"],
        ),
        (
            "{% for m in messages %}{{ m['content'] }};{% endfor %}{{ messages[-1]['content'] }}",
            ["2 times into the prompt of turn 1", "2 times into the prompt of turn 2"],
        ),
        ("{% for m in messages %}{{ m['content'] }};{% endfor %}", []),
    ],
)
def test_turns_that_are_dropped_or_repeated_are_told(template, says):
    warnings = list(Chat.of(with_template(template)).check())
    assert len(warnings) == len(says)
    assert all(text in warning for text, warning in zip(says, warnings, strict=True))


def test_an_added_word_is_no_end_of_an_answer():
    """As `User` in a template that names speakers: an answer may hold the word."""
    named = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}assistant: "
    assert Chat.of(with_template(named, ("user",))).end_id is None


def test_a_text_that_begins_twice_is_told():
    template = "{{ bos_token + bos_token }}{% for m in messages %}{{ m['content'] }};{% endfor %}"
    (warning,) = Chat.of(with_template(template)).check()
    assert "begin with <s> twice" in warning


def test_a_prompt_without_the_token_that_texts_begin_with_is_told():
    """As of Zephyr's template, and of ChatML with Llama's tokenizer."""
    template = "{% for m in messages %}{{ m['content'] }};{% endfor %}"
    tokenizer = with_template(template)
    assert list(Chat.of(tokenizer).check()) == []  # This one puts nothing before a text.
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    (warning,) = Chat.of(tokenizer).check()
    assert "puts <s> before a text, and its chat template does not" in warning
    assert list(Chat.of(tokenizer, "vicuna_v1.1").check()) == []
    tokenizer.chat_template = "{{ bos_token }}" + template
    assert list(Chat.of(tokenizer).check()) == []


def test_a_template_of_one_turn_alone_can_be_used():
    template = (
        "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    chat = Chat.of(with_template(template))
    assert list(chat.check()) == [] and chat.prompt_text(["hi"], []) == "hi"


def test_a_tokenizer_that_loses_spaces_is_refused():
    """transformers reads some tokenizers with a class that does not fit them."""
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(UserError, match="the model would be asked something else"):
        list(Chat.of(tokenizer).check())


def test_a_tokenizer_that_changes_a_text_is_told():
    tokenizer = tiny_tokenizer()
    tokenizer._tokenizer.normalizer = normalizers.Lowercase()
    (warning,) = Chat.of(tokenizer, "vicuna_v1.1").check()
    assert 'the tokenizer makes "is  it so ? don' in warning
    assert list(Chat.of(tiny_tokenizer()).check()) == []


def test_several_templates_without_a_default_are_named():
    with pytest.raises(UserError, match=r"several chat templates \(rag, tool_use\)"):
        Chat.of(with_template({"tool_use": TURNS, "rag": TURNS}))
    assert Chat.of(with_template({"default": "{{ messages }}", "rag": TURNS})).template == "chat"


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NEXT_ROLE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# The answer of an earlier turn stands after a channel that the model must first open.
CHANNELS = (
    "{% for m in messages %}<|start|>{{ m['role'] }}{% if m['role'] == 'assistant' %}<|final|>"
    "{% endif %}{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# The prompt opens a thought, which earlier answers do not have.
THOUGHT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
SPEAKERS = (
    "{% for m in messages %}### {{ m['role'] }}: {{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:{% endif %}"
)
TOKENS = ("<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|end|>", "<|start|>")


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHATML, "<|im_end|>"),
        (CHATML.replace("{{ m['content'] }}<", "{{ m['content'] }} \n<"), "<|im_end|>"),
        (NEXT_ROLE, "<|user|>"),
        (CHANNELS, None),
        (THOUGHT, "<|end|>"),
        ("{{ bos_token }}{% for m in messages %}{{ m['content'] }}\n{% endfor %}", None),
        ("{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}", "</s>"),
    ],
)
def test_an_answer_ends_at_the_token_by_which_the_template_ends_it(template, end):
    """Where that is no eos, answers ran on into invented turns."""
    tokenizer = with_template(template, tokens=TOKENS)
    chat = Chat.of(tokenizer)
    expected = None if end is None else tokenizer.convert_tokens_to_ids(end)
    assert chat.end_id == expected
    assert chat.stop_ids == ({expected} - {None})


def test_a_conversation_of_fastchat_ends_its_answers_too():
    tokenizer = with_template("x", tokens=TOKENS)
    chat = Chat.of(tokenizer, "Yi-34b-chat")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in chat.stop_ids
    assert Chat.of(tiny_tokenizer(), "vicuna_v1.1").stop_ids == {2}


@pytest.mark.parametrize(
    ("template", "marker"),
    [
        (CHATML, "<|im_end|>"),
        (NEXT_ROLE, "<|user|>"),
        (CHATML.replace("<|im_end|>", " [INST]"), "[INST]"),
        (SPEAKERS, None),
        (CHANNELS, None),
    ],
)
def test_an_answer_ends_at_a_marker_that_is_no_token(template, marker):
    """The tokenizer reads it as ordinary text. Answers ran on into invented turns."""
    chat = Chat.of(with_template(template))
    assert chat.end_id is None and chat.stop_ids == set()
    assert chat.stop_strings == (() if marker is None else (marker,))
    if marker is not None:
        ids = chat.tokenizer(f"yes\n{marker}more", add_special_tokens=False).input_ids
        assert chat.stops(ids[:-4]) and not chat.stops(ids[:-5]) and chat.text(ids) == "yes"


def test_an_end_of_answers_that_is_ordinary_text_is_told():
    (warning,) = Chat.of(with_template(SPEAKERS)).check()
    assert "puts '### user:' after an answer, and no token that ends it" in warning
    assert list(Chat.of(with_template(CHATML)).check()) == []


def test_ids_of_another_models_tokens_end_no_answer():
    """Yi's ids are punctuation here: answers ended there, unseen."""
    tokenizer = tiny_tokenizer()
    chat = Chat.of(tokenizer, "Yi-34b-chat")
    assert chat.stop_ids == {2} and "<|im_end|>" in chat.stop_strings
    (warning,) = chat.check()
    assert "at the tokens [6, 7, 8], which are ordinary text" in warning
    assert all(repr(tokenizer.decode([token])) in warning for token in (6, 7, 8))


def test_a_tokens_text_may_say_that_it_ends_turns():
    """Tokenizers of a class of their own may not list such tokens as added."""
    vocab = {"<unk>": 0, "word": 1, "<|im_end|>": 2, "<": 3}
    words = Tokenizer(models.WordLevel(vocab, "<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    assert [ends_turns(tokenizer, token) for token in range(5)] == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("filter_name", "question", "says"),
    [
        ("e", "a < b?", "template changes 1 of the questions' texts, at 'a < b?'"),
        ("tojson", 'say "a"', "template changes 1"),
        ("replace('\n', ' ')", "a\nb", "template changes 1"),
        ("truncate(40)", "a b " * 20, "template changes 1"),
        ("trim", "  a <end>", "reads a special token in 1 of the questions' texts, '<end>'"),
        ("trim", "aßb", "tokenizer loses a part of 1 of the questions' texts, at 'aßb'"),
    ],
)
def test_questions_that_the_prompts_change_are_told(filter_name, question, says):
    """A made-up question shows none of this."""
    template = "{% for m in messages %}{{ m['content'] | FILTER }}{% endfor %};"
    tokenizer = with_template(template.replace("FILTER", filter_name))
    tokenizer.add_tokens(["<end>"], special_tokens=True)
    chat = Chat.of(tokenizer)
    assert list(chat.check_questions([(7, "plain")])) == []
    (said,) = chat.check_questions([(7, "plain"), (9, question)])
    assert says in said and said.endswith("(the first is of question 9)")
