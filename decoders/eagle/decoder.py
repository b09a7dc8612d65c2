"""EAGLE-2 (arXiv 2406.16858): one layer predicts features, from which a token tree is grown.

The layer reads pairs of a feature and the token after it (`decoders.eagle.head`). Among committed
tokens, the features are the base model's own. Along a guessed path, each feature is the layer's own
guess. The tree is made of the most likely paths (`decoders.beam`).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decoders.beam import Beam, BeamDecoder
from decoders.draft_layer import DraftLayer
from decoders.eagle.head import FILE, EagleHead
from decoders.model.model import Model, Rows, Verified
from decoders.tree import Draft


@dataclass
class Eagle(BeamDecoder):
    """EAGLE-2: the one-layer head `files[FILE]` drafts level by level."""

    reads_prompt: ClassVar[bool] = True
    reads_prompt_logits: ClassVar[bool] = False
    weights: ClassVar[dict] = {FILE: EagleHead.from_published}

    nodes: int | str = 64  # Or "auto".
    topk: int = 10  # Guesses after each node that is extended.
    beam: int = 10  # Nodes of each level that are extended.
    depth: int = 6  # Levels of the tree below the root.
    # What is guessed from: "all" or "frequent". None: all, or with nodes=auto the frequent tokens
    # where they are known.
    vocab: str | None = None
    path: str | None = None  # File of the head. None: FILE beside the model.

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.head: EagleHead = self.files[FILE]
        self.vocabulary = self.make_vocabulary(model.projection)
        self.search = Beam(self.max_nodes, self.topk, self.beam, self.depth, model)
        most_kept, most_ahead = 1 + self.max_depth, self.search.most_extended
        self.layer = DraftLayer(self.head.layer, model, most_kept, most_ahead)
        # [1, hidden] the last committed feature, to be paired with the next root.
        self.feature = torch.zeros(1, model.hidden, dtype=model.dtype, device=self.layer.device)

    def start(self, prompt: Tensor, rows: Rows) -> None:
        super().start(prompt, rows)
        self.layer.start(self._pairs(rows.hidden_states[:-1], prompt[1:]))
        self.feature.copy_(rows.hidden_states[-1:])

    def _pairs(self, features: Tensor, token: Tensor) -> Tensor:
        """What the layer reads [rows, hidden] at features [rows, hidden] and the tokens after."""
        return self.head.inputs(features, self.model.embed(token))

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        path = draft.tree.path_to(node)
        features = verified.hidden_states.index_select(0, path)
        features = torch.cat((self.feature, features[:-1]))
        depth = draft.tree.depth.index_select(0, node)
        self.layer.commit(self._pairs(features, draft.legal_token.take(path)), depth + 1)
        self.feature.copy_(verified.hidden_states.index_select(0, node))

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        feature = hidden_state
        # [nodes of the last call, all nodes read so far]: see `attends` of `DraftLayer.read`.
        attends = torch.ones(1, 0, dtype=torch.bool, device=feature.device)

        def logits_of(parent: Tensor, token: Tensor) -> Tensor:
            nonlocal feature, attends
            own = torch.eye(len(token), dtype=torch.bool, device=feature.device)
            attends = torch.cat((attends.index_select(0, parent), own), 1)
            feature = feature.index_select(0, parent)
            feature = self.layer.read(self._pairs(feature, token), attends)
            return self.vocabulary.guesser(feature)

        return self.grow(root, logits_of)
