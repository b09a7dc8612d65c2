"""The candidate tree: which drafted token continues which.

A tree of `nodes` candidates is one array, `parent`: node 0 is the root (its parent is itself) and parents stand before
their children. Depth, lines of ancestors and the attention mask all follow from it.

    parent = [0, 0, 0, 1, 1, 3]          0          depth 0
                                       1   2        depth 1
                                      3 4           depth 2
                                      5             depth 3
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

RankPath = tuple[int, ...]
MOST_BYTES = 16 << 20  # of a file of a tree, or of tokens
MOST_NODES = 4096  # of any tree; a file from a stranger may ask for more than there is memory
NO_GUESS = (
    -2
)  # the token of a node for which there was none; no model says it, so the node is never kept


@dataclass(frozen=True, eq=False)
class Tree:
    """The shape of a candidate tree, without its tokens.

    >>> Tree.from_parent([0, 0, 0, 1, 1, 3]).lines.tolist()
    [[0, 0, 0], [1, 1, 1], [2, 2, 2], [1, 3, 3], [1, 4, 4], [1, 3, 5]]
    """

    depth: Tensor  # [nodes] int64; root 0
    parent: Tensor  # [nodes] int64; the root is its own parent
    lines: Tensor  # [nodes, max_depth] int64; the nodes that lead from the root (left out) to each node, padded with itself

    @classmethod
    def from_parent(cls, parent: Sequence[int]) -> "Tree":
        """The tree of a parent array [nodes]; ValueError where it is not one."""
        if len(parent) == 0 or parent[0] != 0:
            raise ValueError(
                "a tree begins with its root, whose parent is itself: parent[0] must be 0"
            )
        lines: list[list[int]] = [[]]
        for node, above in enumerate(parent[1:], start=1):
            if not 0 <= above < node:
                raise ValueError(
                    f"node {node} has parent {above}; a parent stands before its children"
                )
            lines.append([*lines[above], node])
        width = max(map(len, lines))
        padded = [line + [node] * (width - len(line)) for node, line in enumerate(lines)]
        depth = [len(line) for line in lines]
        return cls(
            torch.tensor(depth), torch.tensor(parent), torch.tensor(padded, dtype=torch.long)
        )

    @classmethod
    def from_paths(cls, paths: Sequence[RankPath]) -> "Tree":
        """The tree of rank paths, a parent before its children; the root is added.

        >>> Tree.from_paths([(0,), (1,), (0, 0)]).parent.tolist()
        [0, 0, 0, 1]
        """
        index = {(): 0} | {path: node for node, path in enumerate(paths, start=1)}
        return cls.from_parent([0] + [index[path[:-1]] for path in paths])

    def to(self, device: torch.device) -> "Tree":
        return Tree(self.depth.to(device), self.parent.to(device), self.lines.to(device))

    def first(self, nodes: int) -> "Tree":
        """The tree of the first `nodes` nodes; as parents stand before their children, it is one."""
        return Tree(self.depth[:nodes], self.parent[:nodes], self.lines[:nodes])

    def __len__(self) -> int:
        return self.depth.shape[0]

    @property
    def max_depth(self) -> int:
        """Levels that `lines` has room for; no node is deeper."""
        return self.lines.shape[1]

    def mask(
        self,
        dtype: torch.dtype,
        hidden: float,
        committed: int | Tensor = 0,
        width: int | None = None,
    ) -> Tensor:
        """Additive attention mask [nodes, width]: row n is 0 at what node n may attend to, and `hidden` elsewhere.

        That is the `committed` positions (an int, or [1]), then, among the nodes behind them, the root, n's ancestors and n.
        The width is committed + nodes unless a wider one is given, whose rest is hidden.
        """
        width = committed + len(self) if width is None else width
        if isinstance(committed, int):
            slots = max(
                4096, 1 << width.bit_length()
            )  # few sizes, so that it is hardly ever made anew
            row = _edge(slots, hidden, dtype, self.depth.device)[slots - committed - 1 :][:width]
        else:
            column = torch.arange(width, device=self.depth.device)
            row = torch.zeros(width, dtype=dtype, device=column.device).masked_fill_(
                column > committed, hidden
            )
        return row.expand(len(self), -1).scatter(1, self.lines + committed, 0.0)


@lru_cache(maxsize=32)
def _edge(slots: int, hidden: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[2 * slots]: 0, from the middle on `hidden`. A mask's row, wherever its edge lies, is a slice of it and no operation."""
    return torch.tensor((0.0, hidden), dtype=dtype, device=device).repeat_interleave(slots)


@dataclass(frozen=True, eq=False)
class Draft:
    """A tree with its tokens: what one verify forward looks at."""

    tree: Tree
    token: Tensor  # [nodes] int64; token[0] is the root, already known from the base model. NO_GUESS where there is none
    log_prob: Tensor | None = None  # [nodes] the decoder's own log probability of each path; root 0

    @classmethod
    def of_root(cls, root: Tensor) -> "Draft":
        """Nothing but the root [1]."""
        return cls(_lone_root(root.device), root)

    @property
    def legal_token(self) -> Tensor:
        """The tokens [nodes], any of the vocabulary where there is none: what can be read."""
        return self.token.clamp(min=0)

    def first(self, nodes: int) -> "Draft":
        """The first `nodes` nodes alone."""
        if nodes == len(self.tree):
            return self
        return Draft(
            self.tree.first(nodes),
            self.token[:nodes],
            None if self.log_prob is None else self.log_prob[:nodes],
        )


@cache
def _lone_root(device: torch.device) -> Tree:
    return Tree.from_parent([0]).to(device)


@dataclass(frozen=True)
class RankTree:
    """A tree by the ranks of the guesses that its paths take."""

    paths: list[RankPath]  # a parent before its children
    frequency: list[float] | None = (
        None  # how often all guesses of a path were right at once, where that was measured
    )


def paths_from_child_counts(counts: Sequence[int]) -> list[RankPath]:
    """Rank paths, breadth first, of a tree given by every node's number of children; trailing zeros may be cut.

    >>> paths_from_child_counts([2, 1])
    [(0,), (1,), (0, 0)]
    """
    queue: list[RankPath] = [()]
    for at, children in enumerate(counts):
        if at >= len(queue):
            raise ValueError(
                f"entry {at} counts the children of a node that no entry before it makes"
            )
        if type(children) is not int or children < 0:
            raise ValueError(f"entry {at} is {children!r}; a number of children is an integer >= 0")
        if len(queue) + children > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        queue += [(*queue[at], rank) for rank in range(children)]
    return queue[1:]


def checked_paths(paths: Sequence[Sequence[int]]) -> list[RankPath]:
    """Rank paths as tuples, parents first; ValueError that names the first path which does not fit a tree."""
    seen: set[RankPath] = {()}
    for path in sorted((tuple(path) for path in paths), key=len):
        if not path or any(type(rank) is not int or rank < 0 for rank in path):
            raise ValueError(
                f"{list(path)} is not a path; a path is a non-empty list of ranks >= 0"
            )
        if path in seen:
            raise ValueError(f"{list(path)} stands twice")
        if path[:-1] not in seen:
            raise ValueError(f"{list(path)} has no parent {list(path[:-1])} in the tree")
        seen.add(path)
    ordered = [tuple(path) for path in paths]
    placed = {path: at for at, path in enumerate(ordered)}
    if any(placed.get(path[:-1], -1) > at for path, at in placed.items()):
        ordered.sort(
            key=lambda path: (len(path), path)
        )  # the given order is kept where it is one already
    return ordered


@cache
def published_trees() -> dict[str, list[RankPath]]:
    """The nine static trees that MEDUSA publishes (`medusa_choices.py`), by name."""
    counts = json.loads(
        files(__package__).joinpath("published_trees.json").read_text(encoding="utf-8")
    )
    return {name: paths_from_child_counts(each) for name, each in counts.items()}


def read_tree(path: Path) -> RankTree:
    """A tree from a JSON file: a list of rank paths, a list of child counts, or an object with either as "paths".

    Such an object may give the paths' "frequency", none above 1 or above the one before it.

    ValueError where the file is no tree, OSError where it cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
        content, frequency = (
            (content["paths"], content.get("frequency"))
            if isinstance(content, dict)
            else (content, None)
        )
        if not isinstance(content, list) or not content:
            raise ValueError("expected a non-empty list of rank paths or of child counts")
        if len(content) >= MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        lists = all(isinstance(entry, list) for entry in content)
        paths = checked_paths(content) if lists else paths_from_child_counts(content)
        if frequency is not None:
            _check_frequency(frequency, len(paths))
            if lists and paths != [tuple(path) for path in content]:
                raise ValueError('with "frequency", every path must stand behind its parent')
        return RankTree(paths, frequency)
    except KeyError:
        raise ValueError(f'{path} is not a tree: an object needs "paths"') from None
    except RecursionError:
        raise ValueError(f"{path} is not a tree: it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a tree: {error}") from None


def _check_frequency(frequency: object, paths: int) -> None:
    if not isinstance(frequency, list) or len(frequency) != paths:
        raise ValueError(f'"frequency" must be a list of {paths} numbers, one a path')
    numbers = all(
        type(each) in (int, float) for each in frequency
    )  # first: what is none cannot be compared
    if not numbers or not all(after <= each <= 1 for each, after in pairwise([*frequency, 0])):
        raise ValueError('"frequency" must descend from at most 1 to at least 0')
