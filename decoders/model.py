"""A base language model and its Medusa heads behind one small face: prefill, guess, verify, keep, advance.

Any causal LM of transformers that lets a 4D attention mask and positions be given works unmodified. The tree mask is
additive in the model's dtype, which `sdpa` and `eager` attention both read correctly (a bool mask is silently wrong
under `eager`). Whether a family really attends along the tree is not assumed: `check_tree_attention` tries it.

With static shapes a verify forward reads a whole bucket of the cache, a power of two, whatever part of it is committed, so
that every step with as many nodes is the same computation on the same addresses. On CUDA it is captured as a graph, which
spares the host some thousand kernel launches a step.
"""

import inspect
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from decoders.cache import KVCache
from decoders.calibration import Calibration
from decoders.heads import MedusaHeads
from decoders.linears import FewRowLinears
from decoders.tree import Draft, RankTree, Tree


@dataclass(frozen=True, eq=False)
class Rows:
    """What the base model says at some positions."""

    hidden: Tensor  # [rows, hidden] the rows that the output projection reads, which are what the heads read too
    logits: Tensor  # [rows, vocab]


@dataclass(eq=False)
class _StaticStep:
    """A verify forward whose shapes and input addresses are fixed."""

    draft: Draft
    committed: Tensor  # [1]
    width: int
    graph: torch.cuda.CUDAGraph | None = None  # where there is one, replaying it fills `rows`
    rows: Rows | None = None


def bucket(slots: int) -> int:
    """The width of the static shape that `slots` fit in.

    >>> bucket(7), bucket(256), bucket(257)
    (256, 256, 512)
    """
    return max(256, 1 << (slots - 1).bit_length())


class UnsupportedModel(ValueError):
    """The model cannot verify a tree in one forward pass."""


class Model:
    """One loaded model; one sequence at a time.

    `heads` may be None for a plain causal LM. `static_tree` and
    `calibration` are those found for this model, if any.
    `static_shapes` may be switched at any time between turns.
    """

    def __init__(
        self,
        lm: PreTrainedModel,
        heads: MedusaHeads | None = None,
        static_tree: RankTree | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.static_shapes = False
        self.lm = lm.eval().requires_grad_(False)
        self.dtype = lm.dtype
        self.device: torch.device = lm.get_input_embeddings().weight.device
        projection = lm.get_output_embeddings()
        if projection is None:
            raise UnsupportedModel(f"{type(lm).__name__} has no output projection that heads could sit beside")
        projection.register_forward_pre_hook(self._remember_hidden)
        self.heads = heads.to(projection.weight.device, self.dtype).requires_grad_(False) if heads else None
        self.static_tree = static_tree
        self.calibration = calibration
        config = lm.config.get_text_config()
        self.vocab: int = config.vocab_size
        self.context: int = getattr(config, "max_position_embeddings", None) or 1 << 20
        self._layer_types = set(getattr(config, "layer_types", None) or [])
        self._window: int | None = getattr(config, "sliding_window", None)  # positions a sliding layer sees
        if unknown := self._layer_types - {"full_attention", "sliding_attention"}:
            raise UnsupportedModel(f"{type(lm).__name__} has layers of type {min(unknown)!r}, which cannot attend a tree")
        self._hidden = torch.empty(0)
        # What the family calls the cache that it is given; newer releases of transformers changed the name.
        self.cache_keyword = "cache" if "cache" in inspect.signature(lm.forward).parameters else "past_key_values"
        self.linears = None
        if self.device.type == "cpu":
            # Grouped-query attention without a repeated copy of keys and values a layer, which transformers makes of them
            # for more than one row under a mask; a CPU's attention kernel reads them as they are.
            os.environ.setdefault("TRANSFORMERS_SDPA_FORCE_GQA", "1")
        self._static_steps: dict[tuple[int, int, int], _StaticStep] = {}
        self.captures = self.device.type == "cuda" and len({parameter.device for parameter in lm.parameters()}) == 1
        with torch.inference_mode():
            probe = DynamicCache(config=lm.config)

            def forward() -> None:
                lm(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device), **{self.cache_keyword: probe})

            try:
                if self.device.type == "cpu":
                    self.linears = FewRowLinears(lm, forward)
                else:
                    forward()
                self.cache = KVCache(probe)
            except ValueError as error:
                raise UnsupportedModel(f"{type(lm).__name__} cannot attend a tree: {error}") from error

    def _remember_hidden(self, _module: object, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    def as_loaded(self) -> AbstractContextManager:
        """The language model without anything of ours in its forward pass, for comparisons."""
        return self.linears.switched_off() if self.linears else nullcontext()

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
            self._static_steps.clear()  # they hold the old buffers' addresses

    def release(self) -> None:
        """Forget everything, and give back all memory but the weights'."""
        self.cache.release()
        self._static_steps.clear()
        self._hidden = torch.empty(0)
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

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
    def guess(self, hidden: Tensor, first: int | None = None) -> Tensor:
        """The logits [heads, vocab] of the heads, or of the `first` of them, at one hidden row [1, hidden]."""
        assert self.heads is not None
        return self.heads(hidden, first).squeeze(1)

    @torch.inference_mode()
    def verify(self, draft: Draft) -> Rows:
        """One forward pass over all nodes of a draft: each attends to the cache, its ancestors and itself.

        The rows are good until the next call.
        """
        if not self.static_shapes:
            return self._forward(draft, self.length, self.length + len(draft.tree))
        step = self._static_step(len(draft.tree), draft.tree.max_depth)
        step.draft.token.copy_(draft.token)
        step.draft.tree.depth.copy_(draft.tree.depth)
        step.draft.tree.lines.copy_(draft.tree.lines)
        step.committed.fill_(self.length)
        return self._run(step) if step.graph is None else self.replay(step)

    def keep(self, path: Tensor) -> None:
        """Move the KV entries of `path` [depth], nodes behind the root, together behind it."""
        if len(path) > 0:
            self.cache.keep(path)

    def advance(self, tokens: int) -> None:
        """Commit the next `tokens` slots."""
        self.cache.length += tokens

    def _forward(self, draft: Draft, committed: int | Tensor, width: int) -> Rows:
        """`committed` may be a tensor [1]; keys from slot 0 up to `width` are read."""
        # Nodes beyond the context are never committed, but their positions must be legal.
        position = (draft.tree.depth + committed).clamp(max=self.context - 1)
        output = self.lm(
            input_ids=draft.token.unsqueeze(0),
            attention_mask=self._attention_mask(draft.tree, committed, width),
            position_ids=position.unsqueeze(0),
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        return Rows(self._hidden[0], output.logits[0])

    def _attention_mask(self, tree: Tree, committed: int | Tensor, width: int) -> Tensor | dict[str, Tensor]:
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

    def _static_step(self, nodes: int, max_depth: int) -> _StaticStep:
        """The static step for trees of this shape in the bucket that is needed now; a new one is captured, if it can be."""
        width = bucket(self.length + nodes)
        key = (nodes, max_depth, width)
        if key not in self._static_steps:
            itself = torch.arange(nodes, device=self.device)
            tree = Tree(torch.zeros_like(itself), torch.zeros_like(itself), itself.unsqueeze(1).repeat(1, max_depth))
            step = _StaticStep(Draft(tree, torch.zeros_like(itself)), torch.full_like(itself[:1], self.length), width)
            if self.captures:
                try:
                    self._record(step)
                except RuntimeError as error:
                    self.captures = False
                    step.graph = None
                    what = " ".join(str(error).split())[:200]
                    warnings.warn(f"no CUDA graph of {type(self.lm).__name__}: {what}; steps run without", stacklevel=2)
            self._static_steps[key] = step
        return self._static_steps[key]

    def _run(self, step: _StaticStep) -> Rows:
        slots = step.committed + torch.arange(len(step.draft.tree), device=self.device)
        self.cache.fixed = (slots, step.width)
        try:
            return self._forward(step.draft, step.committed, step.width)
        finally:
            self.cache.fixed = None

    def replay(self, step: _StaticStep) -> Rows:
        """The forward of a step that has been captured."""
        step.graph.replay()
        return step.rows

    def _record(self, step: _StaticStep) -> None:
        """Capture a step as a CUDA graph. What it writes meanwhile lies behind the committed slots, and is overwritten."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):  # what libraries set up on a first call must not be captured
                self._run(step)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.graph.pool() for other in self._static_steps.values() if other.graph), None)
        with torch.cuda.graph(graph, pool=pool):
            step.rows = self._run(step)
        step.graph = graph

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
                path = torch.cat((tree.lines.new_zeros(1), tree.lines[leaf, : int(tree.depth[leaf])]))
                plain = self.lm(input_ids=torch.cat((prompt, token[path])).unsqueeze(0)).logits[0, 6:].float()
                if plain.isnan().any():
                    raise ValueError("its logits are NaN; the checkpoint is damaged, or needs another dtype (such as float32)")
                distance = (in_tree[path] - plain).norm() / plain.norm().clamp(min=1e-6)
                if not distance < (1e-3 if self.dtype == torch.float32 else 0.1):
                    raise ValueError(f"a verified tree differs from plain text by {distance:.2g} (relative)")
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
            raise UnsupportedModel(f"{type(self.lm).__name__} cannot attend a tree: {error}") from error
