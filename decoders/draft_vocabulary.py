"""The tokens that are worth guessing: the most frequent ones of a model's answers.

Most of a drafter is its projection onto the vocabulary, and most tokens hardly ever occur. Reading
a quarter of the projection takes a quarter of the memory traffic. (FR-Spec, Zhao et al. 2025, arXiv
2502.14856, does it for EAGLE-2.) A token that is left out is never guessed; the base model can
still produce it.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from decoders.model.heads import MedusaHeads
from decoders.model.model import Model
from decoders.model.projection import Projections

FILE = "medusa_vocabulary.json"
CHOICES = ("all", "frequent")
# Log probability that `conditional` gives, in place of a head's, to a known successor that is not
# in the draft vocabulary.
OUTSIDE = -6.0
Guesser = MedusaHeads | Projections


class DraftVocabulary:
    """The tokens that a decoder guesses from: all of them, or the frequent ones.

    In each turn, the prompt's other tokens replace the least frequent ones, up to a quarter of
    them. Where the prompt has more, those with the lowest ids are taken.
    """

    def __init__(
        self,
        model: Model,
        guesser: Guesser | None,
        frequent: list[int] | None,
        wanted: str | None,
        auto: bool,
    ) -> None:
        """Choose the tokens.

        guesser: what makes the logits, over the whole vocabulary. None: the model has no heads.
        frequent: the model's frequent tokens, most frequent first. None: not known.
        wanted: one of CHOICES. None: the frequent tokens for `auto` where they are known, else all.
        auto: whether the decoder has `nodes=auto`.
        ValueError where the frequent ones are wanted and not known, or are no tokens of the model.
        """
        self.model = model
        self.whole = guesser  # Its logits are over the whole vocabulary.
        self.guesser = guesser  # `whole`, narrowed to `tokens`.
        self.tokens: Tensor | None = None  # [size]; None: all.
        # Whether the guesser itself leaves tokens out, whose log probabilities are then -inf.
        self.is_restricted = guesser is not None and guesser.is_restricted
        if wanted is None:
            is_known = frequent is not None and guesser is not None
            wanted = "frequent" if auto and is_known else "all"
        if wanted == "all":
            return
        if guesser is None:
            raise ValueError(
                "this model has no Medusa heads that could guess from frequent tokens; leave vocab "
                "out"
            )
        if frequent is None:
            raise ValueError(
                "this model's frequent tokens are not known; scripts/draft_vocabulary.py counts "
                "them"
            )
        if (largest := max(frequent)) >= model.vocab:
            raise ValueError(
                f"{FILE} has token {largest}, which is not a token of a vocabulary of {model.vocab}"
            )
        self._frequent = torch.tensor(frequent, device=model.device)
        self.tokens = self._frequent.clone()
        self.guesser = guesser.narrowed(self.tokens)
        self._index = torch.empty(model.vocab, dtype=torch.long, device=model.device)
        self._fill_index()

    def _fill_index(self) -> None:
        """Fill `_index` [vocab]: each token's index in `tokens`. len(tokens): it is left out."""
        self._index.fill_(len(self.tokens))
        self._index[self.tokens] = torch.arange(len(self.tokens), device=self.tokens.device)

    def check_topk(self, topk: int) -> None:
        """ValueError where there are fewer tokens than `topk`."""
        if self.tokens is None:
            size, what = self.model.vocab, "vocabulary"
        else:
            size, what = len(self.tokens), "draft vocabulary"
        if topk > size:
            raise ValueError(f"topk is {topk}, but the {what} has {size} tokens")

    def start(self, prompt: Tensor) -> None:
        """A turn begins: put the prompt's own tokens in place of the least frequent ones."""
        if self.tokens is None:
            return
        prompt, room = prompt.to(self.tokens.device), len(self.tokens) // 4
        always, rest = self._frequent.split((len(self.tokens) - room, room))
        own = prompt[~torch.isin(prompt, always)].unique()[:room]
        others = rest[~torch.isin(rest, own)][: room - len(own)]
        torch.cat((always, others, own), out=self.tokens)
        changed = slice(len(always), None)
        self.whole.renarrow(self.guesser, changed, self.tokens[changed])
        self._fill_index()

    def logits(self, hidden_state: Tensor, num_heads: int) -> Tensor:
        """The float32 logits [num_heads, size] that the first Medusa heads have at a hidden state.

        hidden_state: [1, hidden].
        """
        return self.model.draft_logits(hidden_state, num_heads, self.guesser).float()

    def token(self, column: Tensor) -> Tensor:
        """The token ids of these columns of `logits`, in the same shape."""
        return column if self.tokens is None else self.tokens.take(column)

    def with_others(self, log_prob: Tensor) -> Tensor:
        """Log probabilities [rows, size], with one more column for all tokens that are left out."""
        return log_prob if self.tokens is None else F.pad(log_prob, (0, 1), value=OUTSIDE)

    def column(self, token: Tensor) -> Tensor:
        """The columns of these tokens in the result of `with_others`, in the same shape."""
        return token if self.tokens is None else self._index.take(token)


def check_vocab(wanted: str | None) -> None:
    """ValueError where a decoder's option `vocab` is none of CHOICES."""
    if wanted not in (None, *CHOICES):
        raise ValueError(f"vocab is {wanted!r}; available: {', '.join(CHOICES)}")


def parse_vocabulary(content: object) -> list[int]:
    """Token ids, most frequent first, from a JSON object's "tokens". ValueError says what is wrong.

    >>> parse_vocabulary({"tokens": [7, 3]})
    [7, 3]
    """
    tokens = content.get("tokens") if isinstance(content, dict) else None
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(
            'not a draft vocabulary: expected an object with a non-empty list of "tokens"'
        )
    for token in tokens:
        if type(token) is not int or not 0 <= token < 1 << 31:
            raise ValueError(f"not a draft vocabulary: {str(token)[:40]!r} is not a token")
    if len(set(tokens)) < len(tokens):
        raise ValueError("not a draft vocabulary: a token stands twice")
    return tokens
