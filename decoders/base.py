"""What a decoder is: a dataclass of options that proposes a tree each step.

@register("repeat")
@dataclass
class Repeat(Decoder):
    nodes: int = 4                                # a field is an option: --decoder repeat:nodes=8

    def setup(self, model):                       # once per model: check the options against it, build tensors
        self.tree = Tree.from_parent([0, *range(self.nodes - 1)]).to(model.device)
        super().setup(model)

    def propose(self, root, hidden):              # each step: candidates that could follow `root`
        return Draft(self.tree, root.expand(self.nodes))
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from decoders.tree import Draft

if TYPE_CHECKING:
    from decoders.model import Model, Rows


@dataclass
class Decoder:
    """Base class of the tree decoders. Fields are options; options are checked before any model is loaded."""

    drafts: ClassVar[bool] = True  # whether it proposes anything beyond the root
    reads_prompt: ClassVar[bool] = False  # whether `start` needs the prefill's row of every prompt position

    def setup(self, model: "Model") -> None:
        """Bind to a model. ValueError where the options do not fit it."""
        self.model = model

    @property
    def max_nodes(self) -> int:
        """The largest tree it proposes, root included."""
        return self.nodes

    @property
    def max_depth(self) -> int:
        """The deepest tree it proposes; the root has depth 0."""
        return self.max_nodes - 1

    def start(self, prompt: Tensor, rows: "Rows") -> None:
        """A new turn begins: forget the last one. `rows` are the prefill's, all of them if `reads_prompt`."""

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        """The tree to verify next, from the root token [1] and the hidden row [1, hidden] that predicted it."""
        raise NotImplementedError

    def observe(self, draft: Draft, verified: "Rows") -> None:
        """The base model's rows at every node of the draft, for decoders that learn from them."""


def check_depth(depth: int, heads: int, what: str) -> None:
    """ValueError where a tree of `depth` levels needs more heads than there are."""
    if heads == 0:
        raise ValueError("this model has no Medusa heads; use a decoder that needs none, such as greedy")
    if depth > heads:
        raise ValueError(f"{what} is {depth} deep, but the model has {heads} heads; a tree is at most as deep")
