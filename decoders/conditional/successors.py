"""What the base model has said in this conversation about what follows what.

Every position of the prompt and every verified node, kept or not, comes with the model's own distribution over the next token.
`Successors` remembers the top of it by the last token and by the last two; a later row about the same replaces an earlier one,
and where it says the same, it confirms it. So a guess can be judged by the guesses before it, at no further forward pass.
("Token recycling", Luo et al. 2024, keeps the successors of single tokens and drafts from nothing else.)

Memory is bounded, and the work of a step is a fixed number of tensor operations on the device. Pairs of tokens share a hashed
table; every entry carries its pair, so that one is never taken for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from decoders.tree import NO_GUESS

SLOTS = 65_521  # for pairs; a prime
SINGLES = (
    SLOTS - NO_GUESS
)  # where the rows of single tokens begin; what NO_GUESS writes to lies before them
NOTHING = -1e3  # the score of what is not there; finite, so that sums of it still descend
CHUNK = 256  # rows that are learned at once


@dataclass(frozen=True, eq=False)
class Known:
    """What is known to follow some tokens."""

    token: Tensor  # [rows, k] int64; -1 where nothing is known
    bonus: Tensor  # [rows, k] weight[evidence] * log(1 + p / floor) of the base model's p; NOTHING where nothing is known
    evidence: (
        Tensor  # [rows] int64: 0 nothing is known, 1 by one token, 2 by two, 3 by two and confirmed
    )


class Successors:
    """The `k` likeliest successors by one token and by two. One conversation at a time."""

    def __init__(
        self,
        vocab: int,
        k: int,
        weight: Sequence[float],
        floor: float,
        device: torch.device,
        pairs: bool = True,
    ) -> None:
        """weight: by evidence, of a bonus; floor: the probability from which on a successor counts; pairs: are looked up."""
        self.pairs = pairs
        self.vocab = vocab
        self.k = k
        self.floor = floor
        self._weight = torch.tensor(weight, device=device)
        rows = SINGLES + vocab
        self._pair = torch.empty(SLOTS, dtype=torch.long, device=device)
        self._says = torch.empty(SLOTS, dtype=torch.long, device=device)
        self._token = torch.zeros(rows, k, dtype=torch.long, device=device)
        self._bonus = torch.zeros(rows, k, device=device)
        self._evidence = torch.zeros(rows, dtype=torch.long, device=device)
        self.forget()

    def forget(self) -> None:
        """A new conversation."""
        self._pair.fill_(-1)
        self._says.fill_(-1)
        self._token[SLOTS:] = -1
        self._bonus[SLOTS:] = NOTHING
        self._evidence[SLOTS:] = 0

    def after(self, before: Tensor, token: Tensor) -> Known:
        """What follows `token` [rows] behind `before` [rows]: by both where that is known, else by `token` alone."""
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

    def learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        """The base model's `logits` [rows, vocab] at tokens [rows] behind others [rows], the latest first.

        Of a row whose token is NO_GUESS nothing is learned.
        """
        for at in reversed(range(0, len(token), CHUNK)):
            self._learn(*(each[at : at + CHUNK] for each in (before, token, logits)))

    def _learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        best, successor = logits.float().log_softmax(-1).topk(self.k)
        prob = best.exp()
        # (a, NO_GUESS) would be the number of another pair. This one is nobody's.
        pair = torch.add(token, before, alpha=self.vocab).masked_fill(token < 0, NO_GUESS)
        slot, single = pair.remainder(SLOTS), token + SINGLES
        row = torch.cat((slot, single))  # [2 * rows]
        # A pair and its likeliest successor as one number. It is confirmed where the table has the same, or one of the rows
        # further down, which are earlier ones.
        says = torch.add(successor[:, 0], pair, alpha=self.vocab)
        confirmed = self._says.take(slot).eq(says) | says.unsqueeze(1).eq(says).triu(1).any(1)
        evidence = F.pad(torch.where(confirmed, 3, 2), (0, len(token)), value=1)
        # A node off the path may have logits that are no numbers; its successors then count for nothing.
        counts = torch.log1p(prob / self.floor).nan_to_num(nan=0.0)  # [rows, k]
        # Writing twice to one place has no order on a GPU: all who do write what the first of them has.
        first = row.unsqueeze(1).eq(row).byte().argmax(1)
        source = first.remainder(len(token))
        self._token[row] = successor.index_select(0, source)
        evidence = evidence.index_select(0, first)
        self._bonus[row] = counts.index_select(0, source) * self._weight.take(evidence).unsqueeze(1)
        first = first[: len(token)]
        self._pair[slot] = pair.index_select(0, first)
        self._says[slot] = says.index_select(0, first)
        self._evidence[row] = evidence
