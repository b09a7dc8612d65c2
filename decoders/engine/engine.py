"""A model whose steps are made fast. It computes what `Model` does, up to rounding.

few_rows.py       linear layers for the few rows of a step, joined where they read the same
fused.py          a model's small operations, compiled (on request)
own_kernels.py    our Triton kernels (on request, on CUDA): tree_attention.py, kernels/
static_shapes.py  steps on fixed memory, which graphs need
graphs.py         steps captured as CUDA graphs
rehearsal.py      all kinds of steps, captured before the first answer
changes.py        the owner of every change that these make to the loaded model
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.integrations import sdpa_attention

from decoders.accept import Rule
from decoders.drafter import Drafter
from decoders.engine.changes import Changes
from decoders.engine.few_rows import use_few_row_products
from decoders.engine.fused import fuse
from decoders.engine.graphs import Graphs
from decoders.engine.own_kernels import use_own_kernels
from decoders.engine.static_shapes import DraftPlaces, bucket
from decoders.model.heads import MedusaHeads
from decoders.model.model import Model, Rows, UnsupportedModel, Verified
from decoders.tree import Draft

T = TypeVar("T")
# The function of transformers that decides whether attention gets grouped queries.
GROUPED_QUERIES = "use_gqa_in_sdpa"


class Engine(Model):
    """`Model`, made fast. `static_shapes` may be switched at any time between turns."""

    def __init__(
        self,
        lm: PreTrainedModel,
        heads: MedusaHeads | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        fused: bool = False,
    ) -> None:
        """`fused`: compile the model's small operations, which takes seconds at first.

        On CUDA it also means our own kernels.
        """
        super().__init__(lm, heads, tokenizer)
        self.static_shapes = False
        self.changes = Changes()
        is_on_one_device = len({parameter.device for parameter in lm.parameters()}) == 1
        # Products of 8-bit weights look at values on the host.
        is_8bit = getattr(lm, "is_loaded_in_8bit", False)
        self.graphs = Graphs(self.device, captures=is_on_one_device and not is_8bit)
        self._places = DraftPlaces(self.device)
        # [1] the cache's length on the device, where captured operations can read it.
        self._committed = torch.zeros(1, dtype=torch.long, device=self.device)
        if fused:
            fuse(lm, self.changes)
        if fused and is_on_one_device and self.device.type == "cuda":
            config = lm.config.get_text_config()
            use_own_kernels(config, self.masks, self.cache, self.changes)
        if self.device.type == "cpu" and hasattr(sdpa_attention, GROUPED_QUERIES):
            # A CPU's attention kernel reads shared keys and values as they are. transformers would
            # repeat them for every query head.
            self.changes.replace(
                sdpa_attention, GROUPED_QUERIES, lambda *_: True, "attention by grouped queries"
            )
        try:
            with torch.inference_mode():
                if is_on_one_device and self.device.type in ("cpu", "cuda"):
                    use_few_row_products(lm, self._probe, self.changes)
                elif fused:
                    self._probe()  # Compile now, so that an error appears at once.
        except ValueError as error:
            raise UnsupportedModel(f"{type(lm).__name__} cannot attend a tree: {error}") from error

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        with self.changes.off():
            yield

    def reserve(self, slots: int) -> None:
        if self.cache.reserve(bucket(slots) if self.static_shapes else slots):
            self.graphs.clear()  # They hold the old buffers' addresses.

    def release(self) -> None:
        self.graphs.clear()
        super().release()

    @torch.inference_mode()
    def verify(self, draft: Draft, first: int = 0) -> Verified:
        """As `Model.verify`. With static shapes the result is valid until the next call."""
        if not self.static_shapes:
            return super().verify(draft, first)
        placed = self._places.place(draft)
        self._committed.fill_(self.length)
        rows = self.static_forward(placed, first)
        return Verified(rows.hidden_states, rows.logits, placed)

    def static_forward(self, placed: Draft, first: int = 0) -> Rows:
        """The forward over a draft in its fixed memory, replayed as a graph where it can be."""
        shape = self.shape_of(placed)

        def forward() -> Rows:
            nodes = torch.arange(first, len(placed.tree), device=self.device)
            self.cache.static = self._committed + nodes, shape[-1]
            try:
                return self.forward(placed, self._committed, shape[-1], first)
            finally:
                self.cache.static = None

        return self.graphs.run(("verify", first, shape), forward)

    def shape_of(self, draft: Draft) -> tuple[int, int, int]:
        """The numbers that fix the shapes of a static forward: nodes, depth, slots to read."""
        nodes = len(draft.tree)
        return nodes, draft.tree.max_depth, bucket(self.length + nodes)

    def settle(
        self,
        operations: Callable[[Verified], T],
        verified: Verified,
        drafter: Drafter,
        rule: Rule,
    ) -> T:
        """As `Model.settle`, but as one graph where drafter and rule allow it."""
        if not (self.static_shapes and drafter.captures and rule.constants is not None):
            return operations(verified)
        kind = drafter.setup_key, drafter.kind, rule.constants
        key = "settle", kind, self.shape_of(verified.draft)
        return self.graphs.run(key, lambda: operations(verified))

    def keep(self, path: Tensor) -> None:
        if not self.static_shapes:
            super().keep(path)
        elif len(path) > 0:
            self.cache.keep(path, self._committed)
