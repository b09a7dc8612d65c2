"""The base model's own predictions in this conversation, looked up by the tokens before them.

Every position of the prompt and every verified node, kept or not, comes with the model's own
distribution over the next token. `Successors` stores its most likely tokens twice: by the last
token and by the last two. A later row for the same tokens replaces an earlier one. If both have the
same likeliest token, that token is confirmed. So a guess can be judged by the guesses before it
without a further forward pass. (Token Recycling, Luo et al. 2024, arXiv 2408.08696, stores the
successors of single tokens, and drafts from nothing else.)

Memory is bounded, and the work of a step is a fixed number of tensor operations on the device.
Pairs of tokens share a hashed table. Every entry stores its pair, so that two pairs with the same
slot are never confused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from decoders.best_nodes import NO_SCORE
from decoders.tree import NO_GUESS

UNKNOWN = -1  # In an entry of a table: nothing is known.
SLOTS = 65_521  # Rows for pairs; a prime.
# The row of token 0. NO_GUESS is -2, so its row is two before, which belongs to no token.
SINGLES = SLOTS - NO_GUESS
CHUNK = 256  # Rows that are learned at once.


@dataclass(frozen=True, eq=False)
class Known:
    """What is known to follow some tokens."""

    token: Tensor  # [rows, k] int64; UNKNOWN where nothing is known.
    # [rows, k] weight[evidence] * log(1 + p / floor) of the base model's p; NO_SCORE where nothing
    # is known.
    bonus: Tensor
    evidence: Tensor  # [rows] int64: 0 nothing, 1 one token, 2 two tokens, 3 two and confirmed.


class Successors:
    """The `k` likeliest successors by one token and by two, of one conversation at a time."""

    def __init__(
        self,
        vocab: int,
        k: int,
        weight: Sequence[float],
        floor: float,
        device: torch.device,
        pairs: bool = True,
    ) -> None:
        """weight: of a bonus, by evidence. floor: the probability from which a successor counts.

        pairs: whether successors are looked up by two tokens.
        """
        self.pairs = pairs
        self.vocab = vocab
        self.k = k
        self.floor = floor
        self._weight = torch.tensor(weight, device=device)
        rows = SINGLES + vocab
        self._pair = torch.empty(SLOTS, dtype=torch.long, device=device)
        self._claim = torch.empty(SLOTS, dtype=torch.long, device=device)
        self._token = torch.zeros(rows, k, dtype=torch.long, device=device)
        self._bonus = torch.zeros(rows, k, device=device)
        self._evidence = torch.zeros(rows, dtype=torch.long, device=device)
        self.forget()

    def forget(self) -> None:
        """A new conversation begins."""
        self._pair.fill_(UNKNOWN)
        self._claim.fill_(UNKNOWN)
        self._token[SLOTS:] = UNKNOWN
        self._bonus[SLOTS:] = NO_SCORE
        self._evidence[SLOTS:] = 0

    def after(self, before: Tensor, token: Tensor) -> Known:
        """What follows `token` [rows] after `before` [rows].

        By both tokens where that is known, else by `token` alone.
        """
        row = token + SINGLES
        if self.pairs:
            pair = torch.add(token, before, alpha=self.vocab)
            slot = pair.remainder(SLOTS)
            row = torch.where(self._pair.take(slot).eq(pair), slot, row)
        return Known(
            self._token.index_select(0, row),
            self._bonus.index_select(0, row),
            self._evidence.index_select(0, row),
        )

    def learn_text(self, text: Tensor, logits: Tensor) -> None:
        """Take in the base model's `logits` [tokens, vocab] at all tokens of a text [tokens].

        The first token is left out, as nothing stands before it.
        """
        for stop in reversed(range(len(text), 1, -CHUNK)):  # Groups are counted from the end.
            start = max(1, stop - CHUNK)
            before, rows = text[start - 1 : stop - 1], slice(start, stop)
            self._learn(before.flip(0), text[rows].flip(0), logits[rows].flip(0))

    def learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        """Take in the base model's `logits` [rows, vocab] at tokens [rows] after others [rows].

        The latest row comes first. A row whose token is NO_GUESS teaches nothing.
        """
        for start in reversed(range(0, len(token), CHUNK)):
            chunk = slice(start, start + CHUNK)
            self._learn(before[chunk], token[chunk], logits[chunk])

    def _learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        best, successor = logits.float().log_softmax(-1).topk(self.k)
        prob = best.exp()
        # A pair with NO_GUESS would get another pair's number. No pair has the number NO_GUESS.
        pair = torch.add(token, before, alpha=self.vocab).masked_fill(token < 0, NO_GUESS)
        slot, single = pair.remainder(SLOTS), token + SINGLES
        row = torch.cat((slot, single))  # [2 * rows]
        # A pair and its likeliest successor as one number. A claim is confirmed where the table
        # holds the same number, or where an earlier row of this chunk (with a higher index) has it.
        claim = torch.add(successor[:, 0], pair, alpha=self.vocab)
        was_claimed_before = claim.unsqueeze(1).eq(claim).triu(1).any(1)
        is_confirmed = self._claim.take(slot).eq(claim) | was_claimed_before
        evidence = F.pad(torch.where(is_confirmed, 3, 2), (0, len(token)), value=1)
        # A node off the kept path may have NaN logits. Its successors then get no bonus.
        counts = torch.log1p(prob / self.floor).nan_to_num(nan=0.0)  # [rows, k]
        # A GPU writes duplicate indices in no fixed order. So all of them write the first one's
        # values.
        first = row.unsqueeze(1).eq(row).byte().argmax(1)
        source = first.remainder(len(token))
        self._token[row] = successor.index_select(0, source)
        evidence = evidence.index_select(0, first)
        weight = self._weight.take(evidence).unsqueeze(1)
        self._bonus[row] = counts.index_select(0, source) * weight
        first_pair = first[: len(token)]
        self._pair[slot] = pair.index_select(0, first_pair)
        self._claim[slot] = claim.index_select(0, first_pair)
        self._evidence[row] = evidence
