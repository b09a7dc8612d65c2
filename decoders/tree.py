"""The candidate tree: which drafted token continues which.

One array, `parent`, gives a tree of `nodes` candidates. Node 0 is the root, and its own parent.
Parents come before their children. The depths and ancestors follow from the array.

    parent = [0, 0, 0, 1, 1, 3]          0          depth 0
                                       1   2        depth 1
                                      3 4           depth 2
                                      5             depth 3
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

RankPath = tuple[int, ...]  # [depth] the rank of the guess at each level; 0 is the best.
NO_GUESS = -2  # Token of a node without a guess. No model predicts it, so it is never kept.


@dataclass(frozen=True, eq=False)
class Tree:
    """The shape of a candidate tree, without its tokens.

    >>> Tree.from_parent([0, 0, 0, 1, 1, 3]).ancestors.tolist()
    [[0, 0, 0], [1, 1, 1], [2, 2, 2], [1, 3, 3], [1, 4, 4], [1, 3, 5]]
    """

    depth: Tensor  # [nodes] int64; the root's is 0.
    parent: Tensor  # [nodes] int64; the root is its own parent.
    # [nodes, max_depth] int64: the nodes on the path to each node, without the root, with itself.
    # A row that is shorter than max_depth is padded with the node itself.
    ancestors: Tensor

    @classmethod
    def from_parent(cls, parent: Sequence[int]) -> "Tree":
        """The tree of a parent array [nodes]. ValueError where it is not one."""
        if len(parent) == 0 or parent[0] != 0:
            raise ValueError(
                "a tree begins with its root, whose parent is itself: parent[0] must be 0"
            )
        paths: list[list[int]] = [[]]
        for node, above in enumerate(parent[1:], start=1):
            if not 0 <= above < node:
                raise ValueError(
                    f"node {node} has parent {above}; a parent stands before its children"
                )
            paths.append([*paths[above], node])
        width = max(map(len, paths))
        padded = [path + [node] * (width - len(path)) for node, path in enumerate(paths)]
        depth = torch.tensor([len(path) for path in paths])
        return cls(depth, torch.tensor(parent), torch.tensor(padded, dtype=torch.long))

    @classmethod
    def from_paths(cls, paths: Sequence[RankPath]) -> "Tree":
        """The tree of rank paths, a parent before its children. The root is added.

        >>> Tree.from_paths([(0,), (1,), (0, 0)]).parent.tolist()
        [0, 0, 0, 1]
        """
        index = {(): 0} | {path: node for node, path in enumerate(paths, start=1)}
        return cls.from_parent([0] + [index[path[:-1]] for path in paths])

    def to(self, device: torch.device) -> "Tree":
        return Tree(self.depth.to(device), self.parent.to(device), self.ancestors.to(device))

    def truncated(self, nodes: int) -> "Tree":
        """The tree of the first `nodes` nodes. Parents come first, so it is complete."""
        return Tree(self.depth[:nodes], self.parent[:nodes], self.ancestors[:nodes])

    def path_to(self, node: Tensor) -> Tensor:
        """The nodes [1 + max_depth] from the root to `node` [1], padded with `node`.

        >>> Tree.from_parent([0, 0, 0, 1, 1, 3]).path_to(torch.tensor([4])).tolist()
        [0, 1, 4, 4]
        """
        return F.pad(self.ancestors.index_select(0, node).squeeze(0), (1, 0))

    def __len__(self) -> int:
        return self.depth.shape[0]

    @property
    def max_depth(self) -> int:
        """Columns of `ancestors`: an upper limit for the depth of the nodes."""
        return self.ancestors.shape[1]


@dataclass(frozen=True, eq=False)
class Draft:
    """A tree with its tokens: what one verify forward reads."""

    tree: Tree
    token: Tensor  # [nodes] int64; the root first. NO_GUESS where a node has no token.
    log_prob: Tensor | None = None  # [nodes] the drafter's log probability of each path; root 0.
    forecast: Tensor | None = None  # [any] numbers that `Drafter.before_step` needs on the host.

    @classmethod
    def of_root(cls, root: Tensor) -> "Draft":
        """The root [1] alone."""
        return cls(_lone_root(root.device), root)

    @property
    def legal_token(self) -> Tensor:
        """The tokens [nodes], with 0 in place of NO_GUESS: what an embedding can be asked for."""
        return self.token.clamp(min=0)

    def truncated(self, nodes: int) -> "Draft":
        """The first `nodes` nodes alone."""
        if nodes == len(self.tree):
            return self
        log_prob = None if self.log_prob is None else self.log_prob[:nodes]
        return replace(
            self, tree=self.tree.truncated(nodes), token=self.token[:nodes], log_prob=log_prob
        )


@cache
def _lone_root(device: torch.device) -> Tree:
    return Tree.from_parent([0]).to(device)
