"""The most likely paths through independent guesses, exactly, without their Cartesian product.

A path takes one guess of each head down to its depth. Its probability is the product of theirs. Let
every head's guesses be sorted, and write a path as its ranks (r1..rd). Paths of the same length
with no rank larger are at least as likely, and so are their prefixes. With the path itself, they
number sum_k prod_{i<=k} (r_i + 1). A path where this exceeds the wanted number is never chosen. So
a small fixed set of paths, the universe, holds every possible answer. For 63 paths of depth 4 it
has 1,338 members; the Cartesian product of 32 guesses has 1,082,400.
"""

from functools import lru_cache

import torch
from torch import Tensor

from decoders.tree import Draft, RankPath, Tree


class TopPaths:
    """Chooses the `nodes - 1` most likely paths. Scores are log probabilities.

    Members of the universe are ordered by depth, then by ranks. One table holds everything that a
    chosen member needs: its depth, its token, and its ancestors' nodes in the chosen tree. So one
    look-up makes the whole tree, whatever its size.
    """

    def __init__(self, nodes: int, topk: int, depth: int, device: torch.device) -> None:
        """For trees of `nodes` nodes, root included, from `depth` heads with `topk` guesses."""
        paths = universe(nodes, topk, depth)
        members = len(paths)
        shape = Tree.from_paths(paths[1:])
        self.nodes = min(nodes, members)
        # [members, depth] indices of each path's guesses into (nothing, the first head's guesses,
        # the second's, ...). 0, nothing, beyond the member's own depth.
        cells = torch.zeros(members, depth, dtype=torch.long)
        for member, path in enumerate(paths):
            ranks = [1 + level * topk + rank for level, rank in enumerate(path)]
            cells[member, : len(path)] = torch.tensor(ranks)
        # The table: each member's node in the chosen tree; the depths; the tokens, root first.
        depths_at, tokens_at = members, members + depth + 1
        sections = torch.zeros(members), torch.arange(depth + 1), torch.zeros(1 + depth * topk)
        table = torch.cat(sections).long()
        # Levels that no path reaches. There, rows of ancestors are padded with the node itself.
        padding = torch.arange(members).unsqueeze(1).expand(-1, depth - shape.max_depth)
        entries = [
            tokens_at + cells.amax(1), depths_at + shape.depth, shape.parent,
            *shape.ancestors.T, *padding.T,
        ]  # fmt: skip
        self._cells = cells.to(device)
        # [3 + depth, members] indices into the table: token, depth, parent and ancestors of each.
        self._entries = torch.stack(entries).to(device)
        self._member = torch.arange(members, device=device)
        self._table = table.to(device)
        self._node = self._table[:members]
        self._root = self._table[tokens_at : tokens_at + 1]
        self._guesses = self._table[tokens_at + 1 :]
        self._log_prob = torch.zeros(1 + depth * topk, device=device)

    def choose(self, root: Tensor, guesses: Tensor, log_prob: Tensor) -> Draft:
        """The tree of the most likely paths, most likely first.

        root: [1]. guesses: [depth, topk] tokens. log_prob: [depth, topk], each row descending and
        <= 0. Ties go to the shallower path, then to the lower ranks, so that no path stands
        without its parent.
        """
        self._root.copy_(root)
        self._guesses.copy_(guesses.flatten())
        self._log_prob[1:].copy_(log_prob.flatten())
        # Rounding is monotone and no term exceeds 0, so no child's sum exceeds its parent's.
        score = self._log_prob.take(self._cells).sum(-1)  # [members]
        # The bits of a float >= 0, read as an integer, sort as the float does. With the member's
        # number after them no two keys are equal. Ties fall as in a stable sort, which would take
        # much longer.
        keys = torch.add(self._member, score.abs().view(torch.int32), alpha=1 << 29)
        order = keys.topk(self.nodes, largest=False).indices  # [nodes]
        self._node.scatter_(0, order, self._member[: self.nodes])
        found = self._table.take(self._entries.index_select(1, order))
        fixed, ancestors = found.split((3, len(self._entries) - 3))
        token, depth, parent = fixed.unbind()
        return Draft(Tree(depth, parent, ancestors.mT), token, score.index_select(0, order))


@lru_cache(maxsize=64)
def universe(nodes: int, topk: int, depth: int) -> list[RankPath]:
    """Every rank path that can be among the `nodes - 1` most likely; the root's, (), first.

    >>> universe(4, 32, 2)
    [(), (0,), (1,), (2,), (0, 0), (0, 1)]
    """
    members: list[RankPath] = [()]

    def extend(path: RankPath, product: int, preceding: int) -> None:
        for rank in range(topk):
            grown = product * (rank + 1)
            if preceding + grown > nodes - 1:
                return
            members.append((*path, rank))
            if len(path) + 1 < depth:
                extend(members[-1], grown, preceding + grown)

    extend((), 1, 0)
    return sorted(members, key=lambda path: (len(path), path))
