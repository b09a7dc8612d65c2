"""Hydra (arXiv 2402.05109): heads that see the guesses before them.

One head guesses the nodes of a level, from the hidden state, the root, and the guesses on the path
to each node. The tree is made of the most likely paths (`decoders.beam`), where the paper has a
fixed tree.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from decoders.beam import Beam, BeamDecoder
from decoders.decoder import check_depth
from decoders.draft_layer import DraftLayer
from decoders.hydra.heads import CONFIG, FILE, HydraHeads, check_config
from decoders.model.model import Model, Rows, Verified
from decoders.tree import Draft


@dataclass
class Hydra(BeamDecoder):
    """Hydra: the heads `files[FILE]` read the guesses before their own."""

    reads_prompt_logits: ClassVar[bool] = False
    fitted: ClassVar[dict] = {**BeamDecoder.fitted, CONFIG: check_config}
    weights: ClassVar[dict] = {FILE: HydraHeads.from_published}

    nodes: int | str = 64  # Or "auto".
    topk: int = 10  # Guesses after each node that is extended.
    beam: int = 10  # Nodes of each level that are extended.
    depth: int | None = None  # None: as deep as there are heads.
    # What is guessed from: "all" or "frequent". None: all, or with nodes=auto the frequent tokens
    # where they are known.
    vocab: str | None = None
    path: str | None = None  # File of the heads. None: FILE beside the model.

    def path_of(self, file: str) -> str | None:
        if file == CONFIG and self.path is not None:
            return str(Path(self.path).with_name(CONFIG))
        return super().path_of(file)

    @property
    def reads_prompt(self) -> bool:
        return self.files[FILE].prefix is not None

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.heads: HydraHeads = self.files[FILE]
        check_depth(self.depth or 1, len(self.heads), "the tree")
        self.vocabulary = self.make_vocabulary(self.heads.projections)
        self.search = Beam(
            self.max_nodes, self.topk, self.beam, self.depth or len(self.heads), model
        )
        self.prefix: DraftLayer | None = None
        if self.heads.prefix is not None:
            self.prefix = DraftLayer(self.heads.prefix, model, 1 + self.max_depth, 0)
            # [1, hidden] the layer's output at the last committed position.
            self.summary = torch.zeros(
                1, model.hidden, dtype=model.dtype, device=self.prefix.device
            )

    def start(self, prompt: Tensor, rows: Rows) -> None:
        super().start(prompt, rows)
        if self.prefix is not None:
            self.summary.copy_(self.prefix.start(rows.hidden_states)[-1:])

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        if self.prefix is not None:
            kept = verified.hidden_states.index_select(0, draft.tree.path_to(node))
            depth = draft.tree.depth.index_select(0, node)
            outputs = self.prefix.commit(kept, depth + 1)
            self.summary.copy_(outputs.index_select(0, depth))

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        inputs = hidden_state if self.prefix is None else self.summary

        def logits_of(parent: Tensor, token: Tensor) -> Tensor:
            nonlocal inputs
            embedding = self.model.embed(token).to(inputs)
            inputs = torch.cat((inputs.index_select(0, parent), embedding), -1)
            head = inputs.shape[-1] // self.model.hidden - 2
            x = self.heads.blocks(head, inputs)
            return self.vocabulary.guesser(x, head)

        return self.grow(root, logits_of)
