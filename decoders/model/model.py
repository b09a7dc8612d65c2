"""A base language model and its Medusa heads behind one small face: prefill, guess, verify, keep, advance.

Any causal LM of transformers that lets a 4D attention mask and positions be given works unmodified. The tree mask is
additive in the model's dtype, which `sdpa` and `eager` attention both read correctly (a bool mask is silently wrong
under `eager`). Whether a family really attends along the tree is not assumed: `check_tree_attention` tries it.

With static shapes a verify forward reads a whole bucket of the cache, whatever part of it is committed, so that every step
with as many nodes is the same computation on the same addresses, and can be captured as a CUDA graph.
"""

import inspect
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from decoders.conditional.calibration import Calibration
from decoders.engine.fused import Fused
from decoders.engine.graphs import Graphs
from decoders.engine.linears import FewRowLinears
from decoders.model.cache import KVCache
from decoders.model.heads import MedusaHeads
from decoders.tree import Draft, RankTree, Tree


@dataclass(frozen=True, eq=False)
class Rows:
    """What the base model says at some positions."""

    hidden: Tensor  # [rows, hidden] the rows that the output projection reads, which are what the heads read too
    logits: Tensor  # [rows, vocab]


def bucket(slots: int) -> int:
    """The width of the static shape that `slots` fit in: 256, 384, 512, 768, 1024 and so on.

    >>> bucket(7), bucket(256), bucket(257), bucket(600)
    (256, 256, 384, 768)
    """
    power = max(256, 1 << (slots - 1).bit_length())
    return power - power // 4 if 256 < slots <= power - power // 4 else power


def buckets(slots: int) -> Iterator[int]:
    """All widths up to the one that `slots` fit in.

    >>> list(buckets(600))
    [256, 384, 512, 768]
    """
    width = 0
    while width < slots:
        width = bucket(width + 1)
        yield width


class UnsupportedModel(ValueError):
    """The model cannot verify a tree in one forward pass."""


class Model:
    """One loaded model; one sequence at a time.

    `heads` may be None for a plain causal LM. `static_tree`, `calibration` and `frequent` tokens are those found for this
    model, if any. `fused` compiles the small operations of its forward, which takes seconds at first.
    `static_shapes` may be switched at any time between turns.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        heads: MedusaHeads | None = None,
        static_tree: RankTree | None = None,
        calibration: Calibration | None = None,
        frequent: list[int] | None = None,
        fused: bool = False,
    ) -> None:
        self.static_shapes = False
        self.lm = lm.eval().requires_grad_(False)
        self.dtype = lm.dtype
        self.device: torch.device = lm.get_input_embeddings().weight.device
        projection = lm.get_output_embeddings()
        if projection is None:
            raise UnsupportedModel(
                f"{type(lm).__name__} has no output projection that heads could sit beside"
            )
        projection.register_forward_pre_hook(self._remember_hidden)
        self.heads = (
            heads.to(projection.weight.device, self.dtype).requires_grad_(False) if heads else None
        )
        self.static_tree = static_tree
        self.calibration = calibration
        self.frequent = frequent
        config = lm.config.get_text_config()
        self.vocab: int = config.vocab_size
        self.context: int = getattr(config, "max_position_embeddings", None) or 1 << 20
        self._layer_types = set(getattr(config, "layer_types", None) or [])
        self._window: int | None = getattr(
            config, "sliding_window", None
        )  # positions a sliding layer sees
        if unknown := self._layer_types - {"full_attention", "sliding_attention"}:
            raise UnsupportedModel(
                f"{type(lm).__name__} has layers of type {min(unknown)!r}, which cannot attend a tree"
            )
        self._hidden = torch.empty(0)
        # What the family calls the cache that it is given; newer releases of transformers changed the name.
        self.cache_keyword = (
            "cache" if "cache" in inspect.signature(lm.forward).parameters else "past_key_values"
        )
        on_one_device = len({parameter.device for parameter in lm.parameters()}) == 1
        self.changes: list[FewRowLinears | Fused] = []  # of the language model as it was loaded
        if fused:
            self.changes.append(Fused(lm))
        if self.device.type == "cpu":
            # Grouped-query attention without a repeated copy of keys and values a layer, which transformers makes of them
            # for more than one row under a mask; a CPU's attention kernel reads them as they are.
            os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
        self._placed: dict[tuple[int, int], tuple[Tensor, Draft]] = {}  # by nodes and depth
        self._committed = torch.zeros(
            1, dtype=torch.long, device=self.device
        )  # the cache's length, for static shapes
        self.graphs = Graphs(self.device, captures=on_one_device)
        with torch.inference_mode():
            probe = DynamicCache(config=lm.config)

            def forward() -> None:
                lm(
                    input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device),
                    **{self.cache_keyword: probe},
                )

            try:
                if on_one_device and self.device.type in ("cpu", "cuda"):
                    self.changes.append(FewRowLinears(lm, forward))
                else:
                    forward()
                self.cache = KVCache(probe)
            except ValueError as error:
                raise UnsupportedModel(
                    f"{type(lm).__name__} cannot attend a tree: {error}"
                ) from error

    def _remember_hidden(self, _module: object, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """The language model without anything of ours in its forward pass, for comparisons."""
        with ExitStack() as stack:
            for change in self.changes:
                stack.enter_context(change.switched_off())
            yield

    @property
    def num_heads(self) -> int:
        return len(self.heads) if self.heads is not None else 0

    @property
    def length(self) -> int:
        """Committed positions in the KV cache."""
        return self.cache.length

    def reserve(self, slots: int) -> None:
        """Forget everything, and make room for `slots` positions. Reserving twice costs nothing."""
        if self.cache.reserve(bucket(slots) if self.static_shapes else slots):
            self._forget_buffers()

    def release(self) -> None:
        """Forget everything, and give back all memory but the weights'."""
        self.cache.release()
        self._forget_buffers()
        self._hidden = torch.empty(0)
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    @torch.inference_mode()
    def wipe(self) -> None:
        """Forget everything, and leave nothing in the cache that a static step, which reads all of a width, could trip over."""
        self.cache.wipe()

    def _forget_buffers(self) -> None:
        self.graphs.clear()  # what was captured has the old buffers' addresses

    @torch.inference_mode()
    def prefill(self, prompt: Tensor, room: int, all_rows: bool = False) -> Rows:
        """Start over with `prompt` [prompt]; `room` is how many further slots the decoding may use.

        Returns the last row, or every row if `all_rows`.
        """
        self.reserve(len(prompt) + room)
        output = self.lm(
            input_ids=prompt.to(self.device).unsqueeze(0),
            use_cache=True,
            logits_to_keep=0 if all_rows else 1,
            **{self.cache_keyword: self.cache},
        )
        self.cache.length = len(prompt)
        return Rows(self._hidden[0], output.logits[0])

    @torch.no_grad()
    def hidden_rows(self, ids: Tensor) -> Tensor:
        """The rows [batch, length, hidden] that heads read, of plain texts [batch, length], without the cache."""
        with self.as_loaded():  # many rows, maybe under autocast
            self.lm(input_ids=ids, use_cache=False, logits_to_keep=0)
        return self._hidden

    @torch.inference_mode()
    def guess(
        self, hidden: Tensor, first: int | None = None, heads: MedusaHeads | None = None
    ) -> Tensor:
        """The logits [heads, vocab] of the heads, or of the `first` of them, at one hidden row [1, hidden].

        Of other `heads` where they are given, such as the model's own narrowed.
        """
        heads = self.heads if heads is None else heads
        assert heads is not None
        return heads(hidden, first).squeeze(1)

    @torch.inference_mode()
    def verify(self, draft: Draft) -> Rows:
        """One forward pass over all nodes of a draft: each attends to the cache, its ancestors and itself.

        With static shapes the rows are good until the next call.
        """
        if not self.static_shapes:
            return self._forward(draft, self.length, self.length + len(draft.tree))
        draft = self.place(draft)
        self._committed.fill_(self.length)
        return self.run_static(draft)

    def run_static(self, draft: Draft) -> Rows:
        """The forward over a draft that is placed."""
        shape = self.shape_of(draft)
        return self.graphs.run(("verify", shape), lambda: self._run(draft, shape[-1]))

    def shape_of(self, draft: Draft) -> tuple[int, int, int]:
        """What a static forward's shapes follow from: nodes, depth, and the width of the cache that it reads."""
        nodes = len(draft.tree)
        return nodes, draft.tree.max_depth, bucket(self.length + nodes)

    def place(self, draft: Draft) -> Draft:
        """With static shapes the draft at the addresses where all of its shape lie, good until the next; else the draft."""
        if not self.static_shapes:
            return draft
        key = nodes, depth = len(draft.tree), draft.tree.max_depth
        if key not in self._placed:
            table = torch.zeros(3 + depth, nodes, dtype=torch.long, device=self.device)
            self._placed[key] = table, Draft(Tree(table[1], table[2], table[3:].mT), table[0])
        table, there = self._placed[key]
        if draft.token is not there.token:
            tree = draft.tree
            rows = (
                draft.token.unsqueeze(0),
                tree.depth.unsqueeze(0),
                tree.parent.unsqueeze(0),
                tree.lines.mT,
            )
            torch.cat(rows, out=table)
        return Draft(there.tree, there.token, draft.log_prob)

    def keep(self, path: Tensor) -> None:
        """Move the KV entries of `path` [depth], nodes behind the root, together behind it."""
        if len(path) > 0:
            self.cache.keep(path, self._committed if self.static_shapes else self.length)

    def advance(self, tokens: int) -> None:
        """Commit the next `tokens` slots."""
        self.cache.length += tokens

    def _forward(self, draft: Draft, committed: int | Tensor, width: int) -> Rows:
        """`committed` may be a tensor [1]; keys from slot 0 up to `width` are read."""
        position = draft.tree.depth + committed
        if not isinstance(committed, int) or committed + draft.tree.max_depth >= self.context:
            position = position.clamp(
                max=self.context - 1
            )  # nodes beyond the context are never committed, but they are read
        output = self.lm(
            input_ids=draft.legal_token.unsqueeze(0),
            attention_mask=self._attention_mask(draft.tree, committed, width),
            position_ids=position.unsqueeze(0),
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        return Rows(self._hidden[0], output.logits[0])

    def _attention_mask(
        self, tree: Tree, committed: int | Tensor, width: int
    ) -> Tensor | dict[str, Tensor]:
        """Additive mask [1, 1, nodes, width]; one by kind of layer where the family takes them so."""
        never = torch.finfo(self.dtype).min
        full = tree.mask(self.dtype, never, committed, width)
        masks = {"full_attention": full[None, None]}
        if self._window is not None:
            if width > self._window:  # before that the window holds everything
                position = torch.arange(width, device=self.device)
                slots = position[: len(tree)] + committed
                position = position.index_copy(0, slots, tree.depth + committed)
                distance = (tree.depth + committed).unsqueeze(1) - position
                full = full.masked_fill(distance >= self._window, never)
            masks["sliding_attention"] = full[None, None]
        if self._layer_types:
            return {kind: masks[kind] for kind in self._layer_types}
        return full[None, None]

    def _run(self, draft: Draft, width: int) -> Rows:
        self.cache.fixed = (
            self._committed + torch.arange(len(draft.tree), device=self.device),
            width,
        )
        try:
            return self._forward(draft, self._committed, width)
        finally:
            self.cache.fixed = None

    @torch.inference_mode()
    def check_tree_attention(self) -> None:
        """Compare a small tree, verified in one pass, with its paths read as plain text; UnsupportedModel if they differ."""
        ids = (torch.arange(11, device=self.device) * 7919 + 13) % self.vocab
        prompt, token = ids[:6], ids[6:]
        tree = Tree.from_parent([0, 0, 0, 1, 1]).to(self.device)
        try:
            self.prefill(prompt, room=len(tree))
            in_tree = self.verify(Draft(tree, token)).logits.float()
            for leaf in (2, 3, 4):
                path = torch.cat(
                    (tree.lines.new_zeros(1), tree.lines[leaf, : int(tree.depth[leaf])])
                )
                plain = (
                    self.lm(input_ids=torch.cat((prompt, token[path])).unsqueeze(0))
                    .logits[0, 6:]
                    .float()
                )
                if plain.isnan().any():
                    raise ValueError(
                        "its logits are NaN; the checkpoint is damaged, or needs another dtype (such as float32)"
                    )
                distance = (in_tree[path] - plain).norm() / plain.norm().clamp(min=1e-6)
                if not distance < (1e-3 if self.dtype == torch.float32 else 0.1):
                    raise ValueError(
                        f"a verified tree differs from plain text by {distance:.2g} (relative)"
                    )
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
            raise UnsupportedModel(
                f"{type(self.lm).__name__} cannot attend a tree: {error}"
            ) from error
