"""A corpus as one stream of tokens, and how often each source is seen."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from bench.common.errors import UserError
from training.corpus import read_chats

# Prefix of a source -> how often its conversations are seen in an epoch. Other sources: 1.
# Assistant-style answers are what MT-Bench asks for. The sources that are seen less are terse, or
# chit-chat, or long runs of one register.
MIXTURE = {
    "oasst-eval": 1.5, "self-dialogue": 0.3, "natural-instructions": 0.3, "standardebooks": 0.6,
    "tldr-pages": 0.5, "scitldr": 0.5, "nl2bash": 0.5, "english-wordnet": 0.5,
    "synthetic-persona-chat": 0.5, "qmsum": 0.3, "taskmaster4": 0.5, "wikisql": 0.5,
}  # fmt: skip
TOKENIZED_AT_ONCE = 2000  # Conversations.


@dataclass(frozen=True)
class PackedCorpus:
    """Tokenized conversations, one after the other."""

    tokens: np.ndarray  # [all tokens] uint16
    starts: np.ndarray  # [conversations + 1]; conversation i is tokens[starts[i]:starts[i + 1]].
    weight: np.ndarray  # [conversations] times that it is seen in an epoch.

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """The tokens of one epoch, in an order that `seed` and `epoch` fix."""
        rng = np.random.default_rng([seed, epoch])
        # A weight of 1.5 means once or twice, each by chance.
        times = np.floor(self.weight + rng.random(len(self.weight))).astype(int)
        order = rng.permutation(np.repeat(np.arange(len(times)), times))
        parts = [self.tokens[self.starts[i] : self.starts[i + 1]] for i in order]
        return np.concatenate([self.tokens[:0], *parts])  # By chance there may be no part.

    def each_once(self) -> np.ndarray:
        """The tokens of every conversation once, whatever its weight, in an order that is fixed."""
        return replace(self, weight=np.ones(len(self.weight))).epoch(0, 0)

    def batches(self, seed: int, batch_tokens: int, seen: int) -> Iterator[np.ndarray]:
        """Endless batches [batch_tokens], starting after `seen` tokens.

        `seen` is a whole number of batches. An epoch's last tokens, too few for one, are left out.
        UserError where a whole epoch is too short.
        """
        epoch = 0
        while True:
            stream = self.epoch(seed, epoch)
            whole = len(stream) // batch_tokens * batch_tokens
            if whole == 0:
                raise UserError(
                    f"the corpus has {len(stream):,} tokens, fewer than --batch-tokens "
                    f"{batch_tokens}"
                )
            for start in range(min(seen, whole), whole, batch_tokens):
                yield stream[start : start + batch_tokens]
            seen = max(0, seen - whole)
            epoch += 1


def pack(path: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> PackedCorpus:
    """A whole corpus, through the chat template. It is tokenized once, and kept in `cache`.

    UserError where there is no conversation in it.
    """
    if not cache.exists():
        _tokenize(path, tokenizer, cache)
    with np.load(cache) as saved:
        return PackedCorpus(saved["tokens"], saved["starts"], saved["weight"])


def _tokenize(path: Path, tokenizer: PreTrainedTokenizerFast, cache: Path) -> None:
    chats, weight = [], []
    for source, turns in tqdm(read_chats(path), desc=f"reading {path.name}", unit=" chats"):
        if not turns:
            continue
        chats.append(tokenizer.apply_chat_template(turns, tokenize=False))
        weight.append(_weight_of(source))
    if not chats:
        raise UserError(f"{path} has no conversation in it")
    ids = []
    for start in tqdm(range(0, len(chats), TOKENIZED_AT_ONCE), desc="tokenizing"):
        some = chats[start : start + TOKENIZED_AT_ONCE]
        ids += tokenizer(some, add_special_tokens=False)["input_ids"]
    np.savez(
        cache,
        tokens=np.concatenate([np.array(each, dtype=np.uint16) for each in ids]),
        starts=np.cumsum([0] + [len(each) for each in ids]),
        weight=np.array(weight),
    )


def _weight_of(source: str) -> float:
    fitting = (weight for prefix, weight in MIXTURE.items() if source.startswith(prefix))
    return next(fitting, 1.0)
