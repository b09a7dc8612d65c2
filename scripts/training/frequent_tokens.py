"""Counts the tokens of a model's own answers and of a corpus, and keeps the frequent ones."""

import json
from collections import Counter
from dataclasses import dataclass

from tqdm import tqdm

from bench.common.errors import UserError
from bench.common.files import write_atomically
from bench.inputs.chat import Chat
from bench.inputs.loader import Loaded
from decoders.draft_vocabulary import FILE
from settings.training import VocabularySettings
from training.corpus import Example, corpus_examples, no_room
from training.distillation import greedy_answers
from training.models import load_model, with_chat


@dataclass(frozen=True)
class FrequentTokens:
    """The tokens that were kept, and the counts that they were chosen by."""

    tokens: list[int]  # Most frequent first.
    own: Counter[int]  # Counts in the model's own answers.
    corpus: Counter[int]  # Counts in the corpus' answers.

    def share_of(self, counts: Counter[int]) -> float:
        """The part of all counted tokens that is among the kept ones."""
        return sum(counts[token] for token in self.tokens) / counts.total()


def count_frequent_tokens(settings: VocabularySettings) -> FrequentTokens:
    """Count tokens, and write the most frequent. UserError says what does not fit."""
    loaded = load_model(settings)
    vocab = loaded.model.vocab
    size = settings.size or vocab // 4
    if size > vocab:
        raise UserError(f"--size is {size}, but the vocabulary has {vocab} tokens")
    loaded, chat = with_chat(loaded, settings.template)
    corpus, prompts = _read(loaded, chat, settings)
    settings.out.mkdir(parents=True, exist_ok=True)
    answers = greedy_answers(loaded, prompts, settings.new_tokens, settings.batch)
    if not answers:
        raise no_room(settings.corpus, settings.new_tokens)
    own = Counter(token for ids, start in answers for token in ids[start:])
    tokens = most_frequent([own, corpus], size)
    write_atomically(settings.out / FILE, json.dumps({"tokens": tokens}) + "\n")
    return FrequentTokens(tokens, own, corpus)


def _read(
    loaded: Loaded, chat: Chat, settings: VocabularySettings
) -> tuple[Counter[int], list[Example]]:
    """The tokens of all answers of the corpus, and the prompts that leave room for an answer."""
    counts: Counter[int] = Counter()
    prompts: list[Example] = []
    for ids, start in tqdm(corpus_examples(settings.corpus, chat), desc="reading corpus"):
        counts.update(ids[start:])
        has_room = start + settings.new_tokens <= loaded.model.context
        if has_room and len(prompts) < settings.prompts:
            prompts.append((ids, start))
    return counts, prompts


def most_frequent(counts: list[Counter[int]], size: int) -> list[int]:
    """At most `size` tokens that occur, those with the largest shares, summed over the counts.

    Of equal ones the lower token comes first.

    >>> most_frequent([Counter({7: 3, 5: 1}), Counter({5: 10, 9: 10})], 2)
    [5, 7]
    """
    shares: Counter[int] = Counter()
    for each in counts:
        total = each.total()
        for token, count in each.items():
            shares[token] += count / total
    return sorted(shares, key=lambda token: (-shares[token], token))[:size]
