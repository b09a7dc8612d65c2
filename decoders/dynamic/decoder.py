"""MEDUSA-Plus (arXiv 2502.05947): each step builds the tree of the most likely paths afresh.

The probability of a path is the product of the heads' marginals. `normalise` says over which tokens
a head's probabilities sum to 1: "topk", its best guesses (as in the paper's code), or "vocab", all
tokens that it guesses from. Heads guess from the whole vocabulary, or from the model's frequent
tokens alone (`decoders.draft_vocabulary`), which is faster and misses few guesses.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders import draft_vocabulary
from decoders.decoder import Decoder, check_at_least_one, check_depth
from decoders.draft_vocabulary import DraftVocabulary, check_vocab, parse_vocabulary
from decoders.dynamic.top_paths import TopPaths
from decoders.model.model import Model, Rows
from decoders.tree import Draft


@dataclass
class Dynamic(Decoder):
    """MEDUSA-Plus: the most likely paths through the heads' guesses."""

    any_depth: ClassVar[bool] = True
    captures: ClassVar[bool] = True
    fitted: ClassVar[dict] = {draft_vocabulary.FILE: parse_vocabulary}

    nodes: int | str = 64  # Or "auto".
    topk: int = 32  # Guesses of each head.
    depth: int | None = None  # None: as deep as there are heads.
    normalise: str | None = None  # None: "topk"; "vocab" where nodes=auto weighs probabilities.
    # What heads guess from: "all" or "frequent". None: all, or with nodes=auto the frequent tokens
    # where they are known.
    vocab: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(topk=self.topk, depth=self.depth)
        if self.normalise not in (None, "topk", "vocab"):
            raise ValueError(f"normalise is {self.normalise!r}; available: topk, vocab")
        check_vocab(self.vocab)

    def setup(self, model: Model) -> None:
        super().setup(model)
        check_depth(self.depth or 1, model.num_heads, "the tree")
        self.levels = self.depth or model.num_heads
        self.sums_over = self.normalise or ("vocab" if self.auto else "topk")
        frequent = self.files.get(draft_vocabulary.FILE)
        self.vocabulary = DraftVocabulary(model, model.heads, frequent, self.vocab, self.auto)
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

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        depth = self.draft_depth or self.levels
        logits = self.vocabulary.logits(hidden_state, depth)  # [depth, tokens]
        if self.sums_over == "vocab":
            logits = logits.log_softmax(-1)
        log_prob, columns = logits.topk(self.topk)  # [depth, topk]
        if self.sums_over == "topk":
            log_prob = log_prob.log_softmax(-1)
        return self.paths[depth].choose(root, self.vocabulary.token(columns), log_prob)
