"""Where a turn ends: context, limit, EOS, stop strings. All decoders end where greedy does."""

import json
from dataclasses import replace

import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel

from bench.inputs.chat import Chat
from bench.store.turn import read_turns
from decoders import registry
from decoders.accept import Exact, Rule, Sample
from decoders.engine.engine import Engine
from decoders.step import Stop
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.commands import basics, bench
from tests.helpers.companions import spec_of, write_weights
from tests.helpers.models import TINY, randomise, tiny_heads, tiny_llama, tiny_tokenizer
from tests.helpers.steps import bound, tokens_of

DECODERS = [spec_of(name) for name in registry.BUILT_IN]
CONTEXT = TINY["max_position_embeddings"]
GPT2 = dict(vocab_size=101, n_embd=32, n_layer=2, n_head=4, n_positions=CONTEXT)
FAMILIES = {
    "llama": tiny_llama,
    "gpt2": lambda: randomise(tf.GPT2LMHeadModel(tf.GPT2Config(**GPT2))),
}


def answer(
    model: Engine, spec: str, prompt: list[int], stop: Stop, rule: Rule | None = None
) -> tuple[list[int], str]:
    """The tokens after a prompt, and why they end."""
    decoder = bound(model, spec)
    steps = list(decoder.decode(torch.tensor(prompt), rule or Exact(), stop))
    assert all(step.finish is None for step in steps[:-1]) and all(step.tokens for step in steps)
    return tokens_of(steps), steps[-1].finish


def both_shapes(family: str = "llama"):
    """The model with dynamic shapes and with static ones."""
    model = Engine(FAMILIES[family](), tiny_heads())
    for model.static_shapes in (False, True):
        yield model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spec", DECODERS)
def test_a_prompt_near_the_end_of_the_context(spec, family):
    """The last tree reaches beyond the last position. No token may be lost or gained by that."""
    for model in both_shapes(family):
        for length in (CONTEXT - 9, CONTEXT - 2, CONTEXT - 1):
            prompt = [3 + at % 90 for at in range(length)]
            stop = Stop(frozenset(), CONTEXT - length)
            expected = answer(model, "greedy", prompt, stop)
            assert len(expected[0]) == CONTEXT - length
            assert answer(model, spec, prompt, stop) == expected


@pytest.mark.parametrize("spec", DECODERS)
def test_one_token_and_one_token_of_a_prompt(spec):
    for model in both_shapes():
        for prompt in ([1], [1, 7, 9, 11]):
            for most in (1, 2, 3):
                for rule in (Exact(), Sample(0.9, seed=5)):
                    stop = Stop(frozenset(), most)
                    expected = answer(model, "greedy", prompt, stop, rule)
                    assert len(expected[0]) == most and expected[1] == "length"
                    assert answer(model, spec, prompt, stop, rule) == expected


@pytest.mark.parametrize("spec", DECODERS)
def test_eos_at_once_and_at_the_limit(spec):
    prompt = [1, 7, 9, 11]
    for model in both_shapes():
        free, _ = answer(model, "greedy", prompt, Stop(frozenset(), 30))
        assert answer(model, spec, prompt, Stop(frozenset(free[:1]), 30)) == (free[:1], "eos")
        last = next(at for at in range(5, 30) if free[at] not in free[:at])
        # The last token that the limit allows is an EOS. It is the EOS that ends the answer.
        ended = answer(model, spec, prompt, Stop(frozenset([free[last]]), last + 1))
        assert ended == (free[: last + 1], "eos")


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat.of(tiny_tokenizer())


@pytest.mark.parametrize("spec", DECODERS)
def test_stop_strings_end_a_turn_wherever_they_lie(spec, chat):
    """Of one token or of several, at position 0 or later, within a step or across two."""
    prompt = [1, 7, 9, 11]
    for model in both_shapes():
        free, _ = answer(model, "greedy", prompt, Stop(frozenset(), 40))
        text = chat.tokenizer.decode(free)
        for at, size in ((0, 1), (0, 3), (5, 1), (6, 2), (7, 4), (20, 3)):
            stopping = replace(chat, stop_strings=(text[at : at + size], "never there"))
            stop = Stop(frozenset(), 40, stopping.stops)
            tokens, finish = answer(model, spec, prompt, stop)
            assert (tokens, finish) == answer(model, "greedy", prompt, stop)
            assert finish == "stop"
            assert stopping.text(tokens) == text[: text.find(text[at : at + size])].strip()
            if at == 0:  # The stop string is found at once, so the answer is empty.
                assert stopping.text(tokens) == ""


def byte_tokenizer() -> tf.PreTrainedTokenizerFast:
    """One token a byte, so that every character beyond ASCII is split."""
    tokens = ["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bpe = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(tokens)}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevel()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        chat_template="{% for m in messages %}{{ m['content'] }}{% endfor %}",
    )


def test_characters_that_are_split_between_tokens():
    chat = Chat.of(byte_tokenizer())
    said = "né 你好 😀 end"
    ids = chat.tokenizer(said).input_ids
    assert len(ids) == len(said.encode())
    for cut in range(len(ids) + 1):  # As steps or the limit may cut them.
        text = chat.text(ids[:cut])
        whole = said.encode()[:cut].decode(errors="ignore").strip()
        assert text.startswith(whole) and set(text[len(whole) :].strip()) <= {"\ufffd"}
    for stop in ("好", "😀", "é 你"):
        stopping = replace(chat, stop_strings=(stop,))
        ends = [stopping.stops(ids[:cut]) for cut in range(1, len(ids) + 1)]
        first = len(said[: said.find(stop) + len(stop)].encode())
        assert ends.index(True) == first - 1
        assert stopping.text(ids[:first]) == said[: said.find(stop)].strip()


@pytest.mark.parametrize("spec", DECODERS)
def test_split_characters_stop_every_decoder_in_the_same_place(spec):
    """A model of bytes says hardly anything but broken characters. They, too, are found."""
    chat = replace(Chat.of(byte_tokenizer()), stop_strings=("\ufffd\ufffd",))
    for shapes in (False, True):
        model = Engine(tiny_llama(vocab_size=258), tiny_heads(vocab=258))
        model.static_shapes = shapes
        stop = Stop(frozenset(), 60, chat.stops)
        expected = answer(model, "greedy", [3, 200, 90], stop)
        assert expected[1] == "stop" and answer(model, spec, [3, 200, 90], stop) == expected


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> None:
    """The model that some of DECODERS draft with, under its name."""
    write_base(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)


def test_prompts_near_at_and_over_the_limit_as_a_run_records_them(tiny, tmp_path):
    """The template adds 6 tokens of its own."""
    model = write_merged(tmp_path / "model")
    write_weights(tmp_path / "model")
    file = tmp_path / "long.jsonl"
    lengths = {1: CONTEXT - 2, 2: CONTEXT - 1, 3: CONTEXT, 4: CONTEXT + 1, 5: 30}
    rows = [
        {"question_id": n, "category": "math", "turns": ["x" * (length - 6)]}
        for n, length in lengths.items()
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for shapes in ("--static-shapes", "--no-static-shapes"):
        out = tmp_path / shapes
        arguments = basics(model, file, out)
        arguments[arguments.index("--max-new-tokens") + 1] = 1024
        assert bench(*arguments, "--decoder", ",".join(DECODERS), shapes) == 1
        turns = {turn.key: turn for turn in read_turns(out / "turns.jsonl")[0]}
        for spec in DECODERS:
            near, last, at, over, short = (turns[n, spec, 0, 1] for n in lengths)
            prompts = [turn.prompt_tokens for turn in (near, last, at, over, short)]
            assert prompts == list(lengths.values())
            assert near.finish_reason in ("context", "eos") and len(near.token_ids) <= 2
            assert last.finish_reason in ("context", "eos") and len(last.token_ids) == 1
            for turn in (at, over):
                says = f"the prompt has {turn.prompt_tokens} tokens, but the model's context is 160"
                assert turn.failed and says in turn.error
            assert not short.failed
            for n, turn in ((1, near), (2, last), (5, short)):
                assert turn.token_ids == turns[n, "greedy", 0, 1].token_ids


def test_a_run_of_one_token_a_turn(tiny, tmp_path):
    model = write_merged(tmp_path / "model")
    write_weights(tmp_path / "model")
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question_id": 1, "category": "math", "turns": ["a", "b"]}) + "\n")
    out = tmp_path / "run"
    given = basics(model, file, out)
    assert bench(*given, "--max-new-tokens", 1, "--decoder", ",".join(DECODERS)) == 0
    turns, _ = read_turns(out / "turns.jsonl")
    assert len(turns) == 2 * len(DECODERS) and all(len(turn.token_ids) == 1 for turn in turns)
    assert len({(turn.turn, *turn.token_ids) for turn in turns}) == 2


def test_an_empty_answer_is_an_answer(tmp_path, monkeypatch):
    """The first token ends the first turn. The second is asked all the same."""
    model = write_merged(tmp_path / "model")
    monkeypatch.setattr(Chat, "stops", lambda self, tokens: True)
    made = classmethod(lambda cls, tokenizer, *_: cls(tokenizer, "chat", ("",), frozenset()))
    monkeypatch.setattr(Chat, "of", made)
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question_id": 1, "category": "math", "turns": ["a", "b"]}) + "\n")
    out = tmp_path / "run"
    assert bench(*basics(model, file, out), "--decoder", "greedy,dynamic") == 0
    turns, _ = read_turns(out / "turns.jsonl")
    assert [turn.text for turn in turns] == [""] * 4
    assert {turn.finish_reason for turn in turns} == {"stop"}
    [row] = map(json.loads, (out / "answers" / "model-dynamic.jsonl").read_text().splitlines())
    assert row["choices"][0]["turns"] == ["", ""]
