"""The tokens that are worth guessing: the most frequent ones of a model's answers, most frequent first.

Most of a head is its projection onto the vocabulary, and most of the vocabulary hardly ever comes. Reading a quarter of it is
a quarter of the memory traffic ("FR-Spec", Zhao et al. 2025, arXiv 2502.14856, narrows a draft model in the same way). A token
that is left out is never guessed; the base model still says it.
"""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from decoders.model.model import Model
from decoders.tree import MOST_BYTES

CHOICES = ("all", "frequent")
OUTSIDE = (
    -6.0
)  # the log probability that tokens which are not guessed from count for, where one is a successor


class DraftVocabulary:
    """What a decoder's heads guess from: all tokens, or the frequent ones.

    The last quarter of the frequent ones give way to the prompt's own.
    """

    def __init__(self, model: Model, wanted: str | None, auto: bool) -> None:
        """`wanted`: one of CHOICES. None: all tokens, but for `auto`, whose sizes follow the clock, the frequent ones if known.

        ValueError where the frequent ones are wanted and not known.
        """
        self.model = model
        self.heads = model.heads
        self.tokens: Tensor | None = None
        if wanted is None:
            known = model.frequent is not None and model.heads is not None
            wanted = "frequent" if auto and known else "all"
        if wanted == "all":
            return
        if model.heads is None:
            raise ValueError(
                "this model has no Medusa heads that could guess from frequent tokens; leave vocab out"
            )
        if model.frequent is None:
            raise ValueError(
                "this model's frequent tokens are not known; scripts/draft_vocabulary.py counts them"
            )
        self._frequent = torch.tensor(model.frequent, device=model.device)
        self.tokens = self._frequent.clone()  # [size]
        self.heads = model.heads.narrowed(self.tokens)
        self._place = torch.empty(model.vocab, dtype=torch.long, device=model.device)
        self._index()

    def _index(self) -> None:
        self._place.fill_(len(self.tokens))
        self._place[self.tokens] = torch.arange(len(self.tokens), device=self.tokens.device)

    def check_topk(self, topk: int) -> None:
        """ValueError where there are fewer tokens than that."""
        size, what = (
            (self.model.vocab, "vocabulary")
            if self.tokens is None
            else (len(self.tokens), "draft vocabulary")
        )
        if topk > size:
            raise ValueError(f"topk is {topk}, but the {what} has {size} tokens")

    def start(self, prompt: Tensor) -> None:
        """Guess from the frequent tokens, but from the prompt's own in place of the last of them."""
        if self.tokens is None:
            return
        prompt, room = prompt.to(self.tokens.device), len(self.tokens) // 4
        always, last = (
            self._frequent[: len(self.tokens) - room],
            self._frequent[len(self.tokens) - room :],
        )
        own = prompt[~torch.isin(prompt, always)].unique()[:room]
        others = last[~torch.isin(last, own)][: room - len(own)]
        torch.cat((always, others, own), out=self.tokens)
        changed = slice(len(always), None)
        self.heads.out_weight[:, changed] = self.model.heads.out_weight[:, self.tokens[changed]]
        self._index()

    def guess(self, hidden: Tensor, first: int) -> Tensor:
        """The logits [first, size] of the `first` heads at one hidden row [1, hidden], float32."""
        return self.model.guess(hidden, first, self.heads).float()

    def token(self, place: Tensor) -> Tensor:
        """The tokens, of the same shape, that stand at these places of `guess`'s rows."""
        return place if self.tokens is None else self.tokens.take(place)

    def with_others(self, log_prob: Tensor) -> Tensor:
        """Rows [rows, size] of log probabilities, with one more entry where there are tokens that are not guessed from."""
        return log_prob if self.tokens is None else F.pad(log_prob, (0, 1), value=OUTSIDE)

    def place(self, token: Tensor) -> Tensor:
        """Where tokens, of any shape, stand in rows `with_others`."""
        return token if self.tokens is None else self._place.take(token)


def check_vocab(wanted: str | None) -> None:
    """ValueError where a decoder's option asks for no vocabulary that there is."""
    if wanted not in (None, *CHOICES):
        raise ValueError(f"vocab is {wanted!r}; available: {', '.join(CHOICES)}")


def read_vocabulary(path: Path, vocab: int) -> list[int]:
    """Token ids from a JSON object's "tokens", for a model of `vocab` tokens.

    ValueError where the file does not hold that, OSError where it cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
        tokens = content.get("tokens") if isinstance(content, dict) else None
        if not isinstance(tokens, list) or not tokens:
            raise ValueError('expected an object with a non-empty list of "tokens"')
        for token in tokens:
            if type(token) is not int or not 0 <= token < vocab:
                raise ValueError(f"{str(token)[:40]!r} is not a token of a vocabulary of {vocab}")
        if len(set(tokens)) < len(tokens):
            raise ValueError("a token stands twice")
        return tokens
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a draft vocabulary: {error}") from None
