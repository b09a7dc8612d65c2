"""MEDUSA-Plus (arXiv 2502.05947): each step builds the tree of the most likely paths afresh.

A path's probability is the product of the heads' marginals. `normalise` says over what each head's probabilities sum to
one: "topk" (the paper's code: softmax over the topk best logits) or "vocab" (over the whole vocabulary).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders.base import Decoder, check_depth, check_nodes
from decoders.model import Model
from decoders.registry import register
from decoders.top_paths import TopPaths
from decoders.tree import Draft


@register("dynamic")
@dataclass
class Dynamic(Decoder):
    any_depth: ClassVar[bool] = True

    nodes: int | str = 64  # or "auto"
    topk: int = 32
    depth: int | None = None  # None: as deep as there are heads
    normalise: str | None = None  # None: "topk", but "vocab" where the probabilities choose the budget (nodes=auto)

    def __post_init__(self) -> None:
        check_nodes(self.nodes)
        for name, value in (("topk", self.topk), ("depth", self.depth)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.normalise not in (None, "topk", "vocab"):
            raise ValueError(f"normalise is {self.normalise!r}; available: topk, vocab")

    def setup(self, model: Model) -> None:
        check_depth(self.depth or 1, model.num_heads, "the tree")
        self.levels = self.depth or model.num_heads
        self.over = self.normalise or ("vocab" if self.auto else "topk")
        if self.topk > model.vocab:
            raise ValueError(f"topk is {self.topk}, but the vocabulary has {model.vocab} tokens")
        self.paths = {depth: TopPaths(self.max_nodes, self.topk, depth, model.device) for depth in self.draft_depths}
        super().setup(model)

    @property
    def max_depth(self) -> int:
        return self.levels

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        depth = self.budget.depth or self.levels
        logits = self.model.guess(hidden, depth).float()  # [depth, vocab]
        if self.over == "vocab":
            logits = logits.log_softmax(-1)
        best, guesses = logits.topk(self.topk)  # [depth, topk]
        if self.over == "topk":
            best = best.log_softmax(-1)
        return self.paths[depth].choose(root, guesses, best)
