"""The demo's tokenizer: byte-level BPE with a chat template."""

from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

from settings.training import SPECIAL_TOKENS
from training.corpus import read_chats

# A word takes at most one leading space. So indentation becomes tokens of its own, and code needs
# few tokens. Digits are single tokens, as in Llama.
WORDS = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SAMPLE_EVERY = 3  # Conversations; the tokenizer learns from one of so many.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(corpus: Path, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of a corpus' text. Any Unicode text survives a round trip."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(_sample(corpus), trainer)
    bos, eos, *_ = SPECIAL_TOKENS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=bos,
        eos_token=eos,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _sample(corpus: Path) -> Iterator[str]:
    for number, (_, turns) in enumerate(read_chats(corpus)):
        if number % SAMPLE_EVERY == 0:
            yield from (turn["content"] for turn in turns)
