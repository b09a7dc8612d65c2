"""One token a forward pass: the loop with a one-node tree. The baseline of every comparison."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders.decoder import Decoder
from decoders.tree import Draft


@dataclass
class Greedy(Decoder):
    """One token a forward: the tree is the root alone."""

    drafts: ClassVar[bool] = False
    captures: ClassVar[bool] = True
    max_nodes: ClassVar[int] = 1

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        return Draft.of_root(root)
