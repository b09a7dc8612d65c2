"""EAGLE's head: from the features and tokens of the text so far to the next feature.

A feature is the hidden state that the base model's output projection reads. The head joins each
position's feature with the embedding of the token after it, reads them with one decoder layer, and
so predicts the next feature. The base model's projection makes guesses of it (Li et al. 2024, arXiv
2401.15077).

Published names of the tensors, the same for EAGLE-1 and EAGLE-2:

    fc.weight             [hidden, 2 * hidden], the embedding's half first; fc.bias may be absent
    layers.0.*            a Llama's decoder layer without input_layernorm
    embed_tokens.weight   [vocab, hidden] the base model's own; may be absent
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from decoders.draft_layer import Published, llama_layer
from decoders.model.model import Model
from decoders.model.named_tensors import without_copies

FILE = "eagle.safetensors"
EMBEDDING = "embed_tokens.weight"
EAGLE_3 = ("midlayer.", "d2t", "t2d", "layers.0.hidden_norm.")  # What names of EAGLE-3 begin with.


class EagleHead(Published):
    """The head of one base model."""

    def __init__(
        self, model: Model, published: Mapping[str, Tensor] | None = None, has_bias: bool = True
    ) -> None:
        """published: tensors that it is to hold, see `llama_layer`. has_bias: of `fc`."""
        super().__init__()
        self.fc = nn.Linear(2 * model.hidden, model.hidden, bias=has_bias)
        self.layer = llama_layer(model, has_norms=False, published=published)

    def inputs(self, features: Tensor, embeddings: Tensor) -> Tensor:
        """What the layer reads [..., hidden].

        features: [..., hidden]. embeddings: [..., hidden], of the token after each.
        """
        return self.fc(torch.cat((embeddings.to(features), features), -1))

    def published(self) -> dict[str, Tensor]:
        named = self.state_dict()
        return {name.removeprefix("layer."): tensor for name, tensor in named.items()}

    @classmethod
    def from_published(cls, tensors: Mapping[str, Tensor], model: Model) -> "EagleHead":
        """The head from tensors under their published names.

        ValueError names the first tensor that is missing, unknown, or does not fit the model.
        """
        third = sorted(name for name in tensors if name.startswith(EAGLE_3))
        if third:
            raise ValueError(
                f"tensor {third[0]!r} is of EAGLE-3, which reads the features of several layers; "
                "expected the layout of EAGLE-1 and EAGLE-2 (fc and layers.0)"
            )
        named = without_copies(tensors, {EMBEDDING: (model.vocab, model.hidden)})
        with torch.device("meta"):
            made = cls(model, named, has_bias="fc.bias" in named)
        made.take(named, "heads of EAGLE", model)
        return made
