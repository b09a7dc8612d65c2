"""MEDUSA-Plus (arXiv 2502.05947): each step builds the tree of the most likely paths afresh.

A path's probability is the product of the heads' marginals. `normalise` says over what each head's probabilities sum to
one: "topk" (the paper's code: softmax over the topk best logits) or "vocab" (over all tokens that they guess from). Those are
the whole vocabulary or, which is faster and misses a little, the model's frequent tokens (`decoders.draft_vocabulary`).
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders.decoder import Decoder, check_depth
from decoders.draft_vocabulary import DraftVocabulary, check_vocab
from decoders.dynamic.top_paths import TopPaths
from decoders.model.model import Model, Rows
from decoders.registry import register
from decoders.tree import Draft


@register("dynamic")
@dataclass
class Dynamic(Decoder):
    any_depth: ClassVar[bool] = True
    captures: ClassVar[bool] = True

    nodes: int | str = 64  # or "auto"
    topk: int = 32
    depth: int | None = None  # None: as deep as there are heads
    normalise: str | None = (
        None  # None: "topk", but "vocab" where the probabilities choose the budget (nodes=auto)
    )
    vocab: str | None = (
        None  # that is guessed from: "all" or "frequent". None: all; where nodes=auto the frequent, if known
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("topk", self.topk), ("depth", self.depth)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.normalise not in (None, "topk", "vocab"):
            raise ValueError(f"normalise is {self.normalise!r}; available: topk, vocab")
        check_vocab(self.vocab)

    def setup(self, model: Model) -> None:
        super().setup(model)
        check_depth(self.depth or 1, model.num_heads, "the tree")
        self.levels = self.depth or model.num_heads
        self.over = self.normalise or ("vocab" if self.auto else "topk")
        self.vocabulary = DraftVocabulary(model, self.vocab, self.auto)
        self.vocabulary.check_topk(self.topk)
        self.paths = {
            depth: TopPaths(self.max_nodes, self.topk, depth, model.device)
            for depth in self.draft_depths
        }

    @property
    def max_depth(self) -> int:
        return self.levels

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.vocabulary.start(prompt)

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        depth = self.budget.depth or self.levels
        logits = self.vocabulary.guess(hidden, depth)  # [depth, tokens]
        if self.over == "vocab":
            logits = logits.log_softmax(-1)
        best, places = logits.topk(self.topk)  # [depth, topk]
        if self.over == "topk":
            best = best.log_softmax(-1)
        return self.paths[depth].choose(root, self.vocabulary.token(places), best)
