"""Batches of answers, and what heads learn from one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from training.corpus import Example

CHUNK = 1024  # Examples within which those of like length are put together.
NO_TARGET = -100  # A label that the loss leaves out.


def batches(lengths: Sequence[int], batch_tokens: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of examples' indices, each of at most `batch_tokens` tokens with padding.

    A longer example makes a batch alone. The columns that `Lesson` adds to a row are not counted.
    lengths: tokens of each example. seed: fixes the order.
    """
    generator = torch.Generator().manual_seed(seed)
    while True:
        # Sorting within large shuffled chunks keeps a batch's examples alike in length, and the
        # batches random.
        order = torch.randperm(len(lengths), generator=generator).tolist()
        groups = []
        for start in range(0, len(order), CHUNK):
            chunk = sorted(order[start : start + CHUNK], key=lengths.__getitem__)
            groups += _cut(chunk, lengths, batch_tokens)
        for at in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[at]


def _cut(ascending: list[int], lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Examples of ascending length, cut into groups of at most `batch_tokens` with padding."""
    groups: list[list[int]] = [[]]
    for number in ascending:
        if groups[-1] and (len(groups[-1]) + 1) * lengths[number] > batch_tokens:
            groups.append([])
        groups[-1].append(number)
    return groups


@dataclass(frozen=True, eq=False)
class Lesson:
    """A batch with the base model's hidden states, for heads that guess `ahead` tokens.

    A row is a position of a text. The token after it is its root, which the base model predicts.
    Only rows whose root is in an answer are used.
    """

    ids: Tensor  # [batch, length], padded on the right.
    is_answer: Tensor  # [batch, length]
    hidden_states: Tensor  # [batch, length, hidden]
    # [batch, width] whether the token after a position, its root, is in the answer. Every position
    # has at least `ahead` + 1 columns after it.
    is_used: Tensor

    @classmethod
    def of(
        cls,
        group: list[Example],
        ahead: int,
        hidden_states_of: Callable[[Tensor], Tensor],
        device: torch.device,
    ) -> "Lesson":
        """hidden_states_of: the model's [batch, length, hidden], given ids [batch, length]."""
        # Padded so that the target of every head is a valid column. It may lie after the answer.
        longest = max(len(tokens) for tokens, _ in group) + ahead
        ids = torch.zeros(len(group), longest, dtype=torch.long)
        is_answer = torch.zeros(len(group), longest, dtype=torch.bool)
        for row, (tokens, start) in enumerate(group):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            is_answer[row, start : len(tokens)] = True
        ids, is_answer = ids.to(device), is_answer.to(device)
        # Nothing attends to the padding, which stands on the right.
        hidden_states = hidden_states_of(ids).to(device)
        return cls(ids, is_answer, hidden_states, is_answer[:, 1 : longest - ahead])

    def shifted(self, values: Tensor, by: int) -> Tensor:
        """The entries [used, ...] of values [batch, length, ...], `by` rows after each used one."""
        return values[:, by : by + self.is_used.shape[1]][self.is_used]

    def targets(self, by: int) -> Tensor:
        """The token [used] `by` positions after each used row; NO_TARGET outside the answer."""
        return self.shifted(self.ids.masked_fill(~self.is_answer, NO_TARGET), by)
