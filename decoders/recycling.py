"""Token Recycling (Luo et al. 2024, arXiv 2408.08696): drafts from the model's own predictions.

A matrix holds, for each token of the vocabulary, the 8 likeliest successors by the model's latest
distribution after that token. Every verified node, kept or not, replaces the row of its token. A
draft is read from the matrix level by level: the root's successors, their successors, and so on, in
a fixed tree that favours better ranks.

The published matrix is kept for all questions. Here each conversation begins with an empty one, so
that a benchmark's questions do not help each other; `keep=true` does as published. The published
matrix begins with token 0 everywhere. Here an unknown successor is no guess.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decoders.conversation import Conversation
from decoders.decoder import Decoder
from decoders.model.model import Model, Rows, Verified
from decoders.static.rank_tree import paths_from_child_counts
from decoders.tree import NO_GUESS, Draft, RankPath, Tree

SUCCESSORS = 8
# The published tree, as each node's number of children, breadth first, trailing zeros cut. The
# first is the root's. It has 80 nodes besides the root.
CHILDREN = [
    8, 8, 4, 3, 2, 1, 1, 1, 1, 8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 5, 2,
    1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, 3, 1, 1, 0, 0, 1, 0, 0, 0,
    0, 1, 0, 1, 0, 0, 2, 0, 0, 1,
]  # fmt: skip


@dataclass
class Recycling(Decoder):
    """Token Recycling: a fixed tree, filled with the latest successors of tokens."""

    captures: ClassVar[bool] = True

    # Of the tree, root included. Of the published 81, those with the most descendants are kept.
    nodes: int = 81
    keep: bool = False  # Whether what was learned outlives the conversation.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nodes > Recycling.nodes:
            raise ValueError(f"nodes is {self.nodes}; the published tree has {Recycling.nodes}")
        self.paths = published_paths(self.nodes)

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.shape = Tree.from_paths(self.paths).to(model.device)
        self.known = min(SUCCESSORS, model.vocab)
        # [vocab - NO_GUESS, 8]. A token's row is its id - NO_GUESS. NO_GUESS itself has row 0.
        self.matrix = torch.empty(
            model.vocab - NO_GUESS, SUCCESSORS, dtype=torch.long, device=model.device
        )
        self.matrix.fill_(NO_GUESS)
        self.conversation = Conversation()
        self.levels = []  # For each level: its nodes' parents within the level above, and ranks.
        above: list[RankPath] = [()]
        for depth in range(1, self.max_depth + 1):
            level = [path for path in self.paths if len(path) == depth]
            parents = [above.index(path[:-1]) for path in level]
            ranks = [path[-1] for path in level]
            self.levels.append(torch.tensor((parents, ranks), device=model.device))
            above = level

    @property
    def learns_across_questions(self) -> bool:
        return self.keep

    @property
    def max_depth(self) -> int:
        return max(map(len, self.paths), default=0)

    def forget(self) -> None:
        self.matrix.fill_(NO_GUESS)

    def start(self, prompt: Tensor, rows: Rows) -> None:
        if not self.conversation.continues(prompt.tolist()) and not self.keep:
            self.matrix.fill_(NO_GUESS)
        self._learn(prompt[-1:].to(self.model.device), rows.logits[-1:])

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self._learn(draft.token, verified.logits)

    def _learn(self, token: Tensor, logits: Tensor) -> None:
        """Replace the successors of the tokens [rows] by the best of their logits [rows, vocab]."""
        successors = logits.topk(self.known).indices
        successors = successors.masked_fill(token.unsqueeze(1) < 0, NO_GUESS)
        # A GPU writes duplicate indices in no fixed order. So all of them write the values of the
        # last one, which the paper found to draft best.
        order = torch.arange(len(token), device=token.device)
        last = token.unsqueeze(1).eq(token).mul(order).amax(1)
        self.matrix[token - NO_GUESS, : self.known] = successors.index_select(0, last)

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        tokens = [root]
        for parents, ranks in self.levels:
            rows = tokens[-1].index_select(0, parents) - NO_GUESS
            tokens.append(self.matrix[rows, ranks])
        return Draft(self.shape, torch.cat(tokens))


def published_paths(nodes: int) -> list[RankPath]:
    """The rank paths of the published tree, breadth first, without the root.

    nodes: how many, root included. The paper has one size; a smaller tree keeps the nodes with the
    most descendants, of equal ones the shallower, then those of better rank.
    """
    paths = paths_from_child_counts(CHILDREN)

    def descendants(path: RankPath) -> int:
        return sum(other[: len(path)] == path for other in paths)

    ranked = sorted(paths, key=lambda path: (-descendants(path), len(path), path))
    return sorted(ranked[: nodes - 1], key=lambda path: (len(path), path))
