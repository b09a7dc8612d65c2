"""MEDUSA's decoder: the same tree of (depth, rank) pairs in every step.

`tree` names the shape: one of the nine published ones, a JSON file, or "own", the tree that
`scripts/search_tree.py` found for this model. "own" can be cut to its first `nodes - 1` paths. The
default is "own" where the model has such a tree, else MEDUSA's first, mc_sim_7b_63.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar

import torch
from torch import Tensor

from decoders.decoder import Decoder, check_depth
from decoders.model.model import Model
from decoders.static.published_trees import published_trees
from decoders.static.rank_tree import RankTree
from decoders.tree import Draft, RankPath, Tree

FILE = "medusa_tree.json"
OWN = "own"
DEFAULT = "mc_sim_7b_63"


@dataclass
class Static(Decoder):
    """MEDUSA: the tree of the option `tree`, in every step."""

    captures: ClassVar[bool] = True
    fitted: ClassVar[dict] = {FILE: RankTree.parse}

    tree: str | None = None
    nodes: int | str | None = None  # Or "auto". None: all of the tree, at most 64 of the own one.

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paths: list[RankPath] | None = published_trees().get(self.tree)  # None: not known yet.
        self._check_size()

    def _check_size(self) -> None:
        if self.paths is not None and self.nodes not in (None, len(self.paths) + 1):
            raise ValueError(
                f"tree {self.tree} has {len(self.paths) + 1} nodes, not {self.nodes}; leave nodes "
                "out, or use the model's own tree (static:tree=own), which has one for every size"
            )

    def path_of(self, file: str) -> str | None:
        is_name = self.tree in (None, OWN) or self.tree in published_trees()
        return None if is_name else self.tree

    def take(self, files: Mapping[str, object]) -> None:
        """ValueError where the option `tree` names a file that is not there."""
        super().take(files)
        if self.path_of(FILE) is None:
            return
        if FILE not in files:
            near = get_close_matches(self.tree, published_trees(), 1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            names = ", ".join([OWN, *published_trees()])
            raise ValueError(
                f"tree {self.tree!r} is neither a published tree nor a file; {hint}available: "
                f"{names}"
            )
        self.paths = files[FILE].paths
        self._check_size()

    @property
    def identity(self) -> object | None:
        """The rank paths of a tree that the options name, as a file may change under its name."""
        return self.paths

    def setup(self, model: Model) -> None:
        self.log_prob = None
        paths = self.paths if self.paths is not None else self._own(model)
        deepest = max(map(len, paths), default=0)
        check_depth(deepest, model.num_heads, f"tree {self.tree or ''}".strip())
        self.topk = 1 + max((max(path) for path in paths), default=0)
        if self.topk > model.vocab:
            raise ValueError(f"the tree takes guess {self.topk} of a vocabulary of {model.vocab}")
        self.shape = Tree.from_paths(paths).to(model.device)
        # Index of each node's token in (root, the first head's guesses, the second's, ...).
        cells = [0] + [1 + (len(path) - 1) * self.topk + path[-1] for path in paths]
        self.cells = torch.tensor(cells, device=model.device)
        super().setup(model)

    def _own(self, model: Model) -> list[RankPath]:
        """The paths of the model's own tree, or of the default one where it has none."""
        own: RankTree | None = self.files.get(FILE)
        if own is None:
            if self.tree == OWN or self.nodes not in (None, 64):
                raise ValueError(
                    f"this model has no static tree of its own to take {self.nodes or 'all'} nodes "
                    "of; make one with scripts/search_tree.py, or name a published one "
                    f"(static:tree={DEFAULT})"
                )
            return published_trees()[DEFAULT]
        most = len(own.paths) + 1
        nodes = min(self.auto_nodes, most) if self.auto else self.nodes or 64
        if nodes > most and self.nodes is not None:
            raise ValueError(f"the model's own static tree has at most {most} nodes, not {nodes}")
        if own.frequency is not None:
            frequency = torch.tensor([1.0, *own.frequency[: nodes - 1]])
            self.log_prob = frequency.log().to(model.device)
        elif self.auto:
            raise ValueError(
                "nodes=auto needs the frequencies of the model's own static tree; "
                "scripts/search_tree.py has them"
            )
        return own.paths[: nodes - 1]

    @property
    def max_nodes(self) -> int:
        return len(self.shape)

    @property
    def max_depth(self) -> int:
        return self.shape.max_depth

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        logits = self.model.draft_logits(hidden_state, self.max_depth)  # [levels, vocab]
        guesses = logits.topk(self.topk).indices  # [levels, topk]
        tokens = torch.cat((root, guesses.flatten())).index_select(0, self.cells)
        return Draft(self.shape, tokens, self.log_prob)
