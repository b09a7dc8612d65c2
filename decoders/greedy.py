"""One token a forward pass: the loop with a one-node tree. The baseline of every comparison."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decoders.base import Decoder
from decoders.model import Model
from decoders.registry import register
from decoders.tree import Draft, Tree


@register("greedy")
@dataclass
class Greedy(Decoder):
    drafts: ClassVar[bool] = False
    captures: ClassVar[bool] = True
    max_nodes: ClassVar[int] = 1

    def setup(self, model: Model) -> None:
        self.tree = Tree.from_parent([0]).to(model.device)
        self.log_prob = torch.zeros(1, device=model.device)
        super().setup(model)

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        return Draft(self.tree, root, self.log_prob)
