"""MEDUSA's decoder: the same tree of (depth, rank) pairs in every step.

`tree` names the shape: one of the nine published ones, a JSON file, or "own", the one searched for this model
(`scripts/search_tree.py`), of which the first `nodes - 1` paths are taken. By default the model's own where it has one,
else MEDUSA's first, mc_sim_7b_63.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from decoders.decoder import Decoder, check_depth
from decoders.model.model import Model
from decoders.registry import register
from decoders.tree import Draft, RankPath, Tree, published_trees, read_tree


@register("static")
@dataclass
class Static(Decoder):
    captures: ClassVar[bool] = True

    tree: str | None = None
    nodes: int | str | None = (
        None  # or "auto"; None: all of the tree, at most 64 of the model's own
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paths = None if self.tree in (None, "own") else self._named(self.tree)
        if self.paths is not None and self.nodes not in (None, len(self.paths) + 1):
            raise ValueError(
                f"tree {self.tree} has {len(self.paths) + 1} nodes, not {self.nodes}; leave nodes out, "
                "or use the model's own tree (static:tree=own), which has one for every size"
            )

    @staticmethod
    def _named(tree: str) -> list[RankPath]:
        if tree in published_trees():
            return published_trees()[tree]
        if Path(tree).is_file():
            return read_tree(Path(tree)).paths
        near = get_close_matches(tree, published_trees(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"tree {tree!r} is neither a published tree nor a file; {hint}available: own, {', '.join(published_trees())}"
        )

    def setup(self, model: Model) -> None:
        self.log_prob = None
        paths = self.paths if self.paths is not None else self._own(model)
        check_depth(
            max(map(len, paths), default=0), model.num_heads, f"tree {self.tree or ''}".strip()
        )
        self.topk = 1 + max((max(path) for path in paths), default=0)
        if self.topk > model.vocab:
            raise ValueError(f"the tree takes guess {self.topk} of a vocabulary of {model.vocab}")
        shape = Tree.from_paths(paths)
        self.shape = shape.to(model.device)
        # Where each node's token stands in (root, head 1's guesses, head 2's, ...).
        cells = [0] + [1 + (len(path) - 1) * self.topk + path[-1] for path in paths]
        self.cells = torch.tensor(cells, device=model.device)
        super().setup(model)

    def _own(self, model: Model) -> list[RankPath]:
        own = model.static_tree
        if own is None:
            if self.tree == "own" or self.nodes not in (None, 64):
                raise ValueError(
                    f"this model has no static tree of its own to take {self.nodes or 'all'} nodes of; make one with "
                    "scripts/search_tree.py, or name a published one (static:tree=mc_sim_7b_63)"
                )
            return published_trees()["mc_sim_7b_63"]
        most = len(own.paths) + 1
        nodes = min(self.budget.max_nodes, most) if self.auto else self.nodes or 64
        if nodes > most and self.nodes is not None:
            raise ValueError(f"the model's own static tree has at most {most} nodes, not {nodes}")
        if own.frequency is not None:
            self.log_prob = torch.tensor([1.0, *own.frequency[: nodes - 1]]).log().to(model.device)
        elif self.auto:
            raise ValueError(
                "nodes=auto needs the frequencies of the model's own static tree; scripts/search_tree.py has them"
            )
        return own.paths[: nodes - 1]

    @property
    def max_nodes(self) -> int:
        return len(self.shape)

    @property
    def max_depth(self) -> int:
        return self.shape.max_depth

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        guesses = self.model.guess(hidden).topk(self.topk).indices.to(root.device)  # [heads, topk]
        return Draft(
            self.shape,
            torch.cat((root, guesses.flatten())).index_select(0, self.cells),
            self.log_prob,
        )
