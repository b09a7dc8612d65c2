"""Static trees as rank paths: one rank for each guess on a path.

The rank path (0, 2) takes the best guess of the first head, then the third best of the second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from decoders.spec import MOST_NODES
from decoders.tree import RankPath


@dataclass(frozen=True)
class RankTree:
    """A tree by its rank paths."""

    paths: list[RankPath]  # A parent before its children; the root is left out.
    # [paths] share of positions where all guesses of a path were right. None: not measured.
    frequency: list[float] | None = None

    @classmethod
    def parse(cls, content: object) -> "RankTree":
        """A tree from JSON: a list of rank paths, a list of child counts, or an object.

        An object holds one of these lists as "paths". It may also hold "frequency", one number a
        path, descending. ValueError says what is wrong.
        """
        try:
            return cls._parsed(content)
        except ValueError as error:
            raise ValueError(f"not a tree: {error}") from None

    @classmethod
    def _parsed(cls, content: object) -> "RankTree":
        frequency = None
        if isinstance(content, dict):
            if "paths" not in content:
                raise ValueError('an object needs "paths"')
            content, frequency = content["paths"], content.get("frequency")
        if not isinstance(content, list) or not content:
            raise ValueError("expected a non-empty list of rank paths or of child counts")
        if len(content) >= MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES} nodes")
        has_paths = all(isinstance(entry, list) for entry in content)
        paths = checked_paths(content) if has_paths else paths_from_child_counts(content)
        if frequency is not None:
            _check_frequency(frequency, len(paths))
            if has_paths and paths != [tuple(path) for path in content]:
                raise ValueError('with "frequency", every path must come after its parent')
        return cls(paths, frequency)


def paths_from_child_counts(counts: Sequence[int]) -> list[RankPath]:
    """Rank paths, breadth first, of a tree given by every node's number of children.

    Trailing zeros may be cut. ValueError says what is wrong.

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
    """Rank paths as tuples, parents first. ValueError names the first that does not fit a tree.

    The given order is kept where parents come first in it already.
    """
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
    position = {path: at for at, path in enumerate(ordered)}
    if any(position.get(path[:-1], -1) > at for path, at in position.items()):
        ordered.sort(key=lambda path: (len(path), path))
    return ordered


def _check_frequency(frequency: object, paths: int) -> None:
    if not isinstance(frequency, list) or len(frequency) != paths:
        raise ValueError(f'"frequency" must be a list of {paths} numbers, one a path')
    are_numbers = all(type(each) in (int, float) for each in frequency)
    if not are_numbers or not all(b <= a <= 1 for a, b in pairwise([*frequency, 0])):
        raise ValueError('"frequency" must descend from at most 1 to at least 0')
