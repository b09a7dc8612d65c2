"""What the base model has said in this conversation about what follows what.

Every position of the prompt and every verified node, kept or not, comes with the model's own distribution over the next token.
`Successors` remembers the top of it by the last token and by the last two; a later row about the same replaces an earlier one.
So a guess can be judged by the guesses before it, at no further forward pass. ("Token recycling", Luo et al. 2024, keeps the
successors of single tokens and drafts from nothing else.)

Memory is bounded, and the work of a step is a fixed number of tensor operations on the device. Pairs of tokens share a hashed
table; every entry carries its pair, so that one is never taken for another.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

SLOTS = 65_521  # for pairs; a prime
NOTHING = -1e3  # finite, so that sums of it still descend
CHUNK = 256  # rows that are learned at once


@dataclass(frozen=True, eq=False)
class Known:
    """What is known to follow some tokens."""

    token: Tensor  # [rows, k] int64
    log_prob: Tensor  # [rows, k] the base model's; NOTHING where no token is known
    evidence: Tensor  # [rows] int64, tokens of context that it rests on: 0 where nothing is known, 1 or 2


class Successors:
    """The `k` likeliest successors by one token and by two. One conversation at a time."""

    def __init__(self, vocab: int, k: int, device: torch.device) -> None:
        self.vocab = vocab
        self.k = k
        rows = SLOTS + vocab  # pairs, then single tokens
        self._pair = torch.empty(SLOTS, dtype=torch.long, device=device)
        self._token = torch.empty(rows, k, dtype=torch.long, device=device)
        self._log_prob = torch.empty(rows, k, device=device)
        self._evidence = torch.full((rows,), 2, dtype=torch.long, device=device)
        self.forget()

    def forget(self) -> None:
        """A new conversation."""
        self._pair.fill_(-1)
        self._token[SLOTS:] = 0
        self._log_prob[SLOTS:] = NOTHING
        self._evidence[SLOTS:] = 0

    def after(self, before: Tensor, token: Tensor) -> Known:
        """What follows `token` [rows] behind `before` [rows]: by both where that is known, else by `token` alone."""
        pair = torch.add(token, before, alpha=self.vocab)
        slot = pair.remainder(SLOTS)
        row = torch.where(self._pair.take(slot).eq(pair), slot, token + SLOTS)
        return Known(self._token.index_select(0, row), self._log_prob.index_select(0, row), self._evidence.index_select(0, row))

    def learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        """The base model's `logits` [rows, vocab] at tokens [rows] behind others [rows]. Of equal ones the first row counts."""
        for at in range(0, len(token), CHUNK):
            self._learn(*(each[at : at + CHUNK] for each in (before, token, logits)))

    def _learn(self, before: Tensor, token: Tensor, logits: Tensor) -> None:
        logits = logits.float()
        best, successor = logits.topk(self.k)
        log_prob = best - logits.logsumexp(-1, keepdim=True)
        pair = torch.add(token, before, alpha=self.vocab)
        slot = pair.remainder(SLOTS)
        row = torch.cat((slot, token + SLOTS))  # [2 * rows]
        # Writing twice to one place has no order on a GPU: all who do write what the first of them has.
        first = row.unsqueeze(1).eq(row).byte().argmax(1)
        source = first.remainder(len(token))
        self._token[row] = successor.index_select(0, source)
        self._log_prob[row] = log_prob.index_select(0, source)
        self._pair[slot] = pair.index_select(0, first[: len(token)])
        self._evidence[row[len(token) :]] = 1
