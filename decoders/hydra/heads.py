"""Hydra heads: head k sees the hidden state, the root, and the k guesses before its own.

A head is `layers` residual blocks and a projection onto the vocabulary. Its first block reads the
hidden state and k + 1 embeddings side by side, and narrows them to one hidden state (Ankner et al.
2024, arXiv 2402.05109). In Hydra++ a decoder layer reads the hidden states of the whole text, and
the heads see its output at the last position in place of the base model's own hidden state.

Published names of the tensors, for head i with n blocks:

    hydra_mlp.{i}.0.linear.weight          [hidden, (i + 2) * hidden], and .bias
    hydra_mlp.{i}.0.res_connection.weight  [hidden, (i + 2) * hidden], and .bias
    hydra_mlp.{i}.{j}.linear.weight        [hidden, hidden], and .bias; 0 < j < n, all the same
    hydra_lm_head.{i}.weight               [vocab, hidden], and .bias
    prefix_embeding_layer.*                of Hydra++: a Llama of one layer
    input_embed_fn.weight                  [vocab, hidden] the base model's own; may be absent

In files of Hydra++, layers of dropout are counted too: block j is 1 + 2 * j, and a projection is
hydra_lm_head.{i}.1. In ours, projections may be absent: all heads then end in the base model's.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaModel

from decoders.draft_layer import Published, llama_layer
from decoders.model.model import Model
from decoders.model.named_tensors import without_copies
from decoders.model.projection import Projections

FILE = "hydra_lm_head.safetensors"
CONFIG = "config.json"  # Beside it. It says which hidden states the heads read.
PREFIX = "prefix_embeding_layer."  # Spelt so in published files.
EMBEDDING = "input_embed_fn.weight"
_BLOCK = re.compile(r"hydra_mlp\.(\d+)\.(\d+)\.(.*)")


def check_config(content: object) -> object:
    """The configuration of Hydra heads. ValueError where they read another layer's hidden states.

    `hidden_state_offset` counts the layers between those hidden states and the last ones.
    """
    offset = content.get("hidden_state_offset") if isinstance(content, dict) else None
    if offset not in (None, 0):
        raise ValueError(
            f"hidden_state_offset is {offset!r}, so the heads read the hidden states of an earlier "
            "layer; expected 0, heads of the last layer's"
        )
    return content


class _Block(nn.Module):
    """x + SiLU(W x + b), where a linear layer narrows x first if it is wider than the result."""

    def __init__(self, wide: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(wide, hidden)
        self.res_connection = nn.Linear(wide, hidden) if wide != hidden else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.res_connection(x) + F.silu(self.linear(x))


class HydraHeads(Published):
    """`heads` Hydra heads for one base model."""

    def __init__(
        self,
        model: Model,
        heads: int,
        layers: int = 1,
        shares_projection: bool = False,
        prefix: LlamaModel | None = None,
    ) -> None:
        """shares_projection: whether all heads end in the base model's projection.

        prefix: the decoder layer of Hydra++. None: the heads see the base model's hidden states.
        """
        super().__init__()
        hidden = model.hidden
        self.hydra_mlp = nn.ModuleList()
        for head in range(heads):
            block = _Block(hidden, hidden)  # Published heads repeat one block.
            first = _Block((head + 2) * hidden, hidden)
            self.hydra_mlp.append(nn.Sequential(first, *(layers - 1) * [block]))
        self.hydra_lm_head: nn.ModuleList | None = None
        if not shares_projection:
            made = (nn.Linear(hidden, model.vocab) for _ in range(heads))
            self.hydra_lm_head = nn.ModuleList(made)
        self.prefix = prefix
        self._model = (model,)  # In a tuple, so that torch does not look for modules in it.

    def __len__(self) -> int:
        return len(self.hydra_mlp)

    @property
    def shares_projection(self) -> bool:
        """Whether all heads end in the base model's projection."""
        return self.hydra_lm_head is None

    @property
    def projections(self) -> Projections:
        """Of all heads."""
        own = self.hydra_lm_head
        return Projections(own or [self._model[0].lm.get_output_embeddings()])

    def forward(self, head: int, inputs: Tensor) -> Tensor:
        """The logits [rows, vocab] of a head at inputs [rows, (head + 2) * hidden]."""
        return self.projections(self.blocks(head, inputs), head)

    def blocks(self, head: int, inputs: Tensor) -> Tensor:
        """What a head projects [rows, hidden], at inputs [rows, (head + 2) * hidden]."""
        return self.hydra_mlp[head](inputs)

    def published(self) -> dict[str, Tensor]:
        named = self.state_dict()
        if self.prefix is None:
            return named
        return {_plus_plus_name(name): tensor for name, tensor in named.items()}

    @classmethod
    def from_published(cls, tensors: Mapping[str, Tensor], model: Model) -> "HydraHeads":
        """Heads from tensors under their published names.

        ValueError names the first tensor that is missing, unknown, or does not fit the model.
        """
        vocabulary = model.vocab, model.hidden
        copies = {EMBEDDING: vocabulary, f"{PREFIX}embed_tokens.weight": vocabulary}
        named = without_copies(tensors, copies)
        blocks = [match for name in named if (match := _BLOCK.fullmatch(name))]
        if not blocks:
            raise ValueError(
                "there is no Hydra head in it (expected names like 'hydra_mlp.0.0.linear.weight')"
            )
        if not any(match[3].startswith("res_connection.") for match in blocks):
            raise ValueError(
                "its heads do not see each other's guesses: no tensor is a 'res_connection' (they "
                "were trained without grounded_heads)"
            )
        heads = 1 + max(int(match[1]) for match in blocks)
        layers = len({match[2] for match in blocks})
        if heads > len(named):
            raise ValueError(f"{len(named)} tensors cannot make {heads} Hydra heads")
        of_prefix = {
            name.removeprefix(PREFIX): tensor
            for name, tensor in named.items()
            if name.startswith(PREFIX)
        }
        shares_projection = not any(name.startswith("hydra_lm_head.") for name in named)
        with torch.device("meta"):
            prefix = llama_layer(model, has_norms=True, published=of_prefix) if of_prefix else None
            made = cls(model, heads, layers, shares_projection, prefix)
        made.take(named, f"{heads} Hydra heads of {layers} blocks", model)
        return made


def _plus_plus_name(name: str) -> str:
    """The name in a file of Hydra++, where a layer of dropout stands before each other one.

    >>> [_plus_plus_name(each) for each in ("hydra_mlp.2.1.linear.bias", "hydra_lm_head.0.bias")]
    ['hydra_mlp.2.3.linear.bias', 'hydra_lm_head.0.1.bias']
    """
    part, rest = name.split(".", 1)
    if part == "prefix":
        return PREFIX + rest
    head, rest = rest.split(".", 1)
    if part == "hydra_lm_head":
        return f"{part}.{head}.1.{rest}"
    block, rest = rest.split(".", 1)
    return f"{part}.{head}.{1 + 2 * int(block)}.{rest}"
