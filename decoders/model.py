"""A base language model and its Medusa heads behind one small face: prefill, guess, verify, keep.

Any causal LM of transformers that lets a 4D attention mask and positions be given works unmodified. The tree mask is
additive in the model's dtype, which `sdpa` and `eager` attention both read correctly (a bool mask is silently wrong
under `eager`). Whether a family really attends along the tree is not assumed: `check_tree_attention` tries it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from decoders.cache import KVCache
from decoders.heads import MedusaHeads
from decoders.tree import Draft, Tree


@dataclass(frozen=True, eq=False)
class Rows:
    """What the base model says at some positions."""

    hidden: Tensor  # [rows, hidden] the rows that the output projection reads, which are what the heads read too
    logits: Tensor  # [rows, vocab]


class UnsupportedModel(ValueError):
    """The model cannot verify a tree in one forward pass."""


class Model:
    """One loaded model; one sequence at a time.

    `heads` may be None for a plain causal LM. `static_tree` are the rank paths searched for this model, if any.
    """

    def __init__(self, lm: PreTrainedModel, heads: MedusaHeads | None = None, static_tree: list | None = None) -> None:
        self.lm = lm.eval().requires_grad_(False)
        self.dtype = lm.dtype
        self.device: torch.device = lm.get_input_embeddings().weight.device
        projection = lm.get_output_embeddings()
        if projection is None:
            raise UnsupportedModel(f"{type(lm).__name__} has no output projection that heads could sit beside")
        projection.register_forward_pre_hook(self._remember_hidden)
        self.heads = heads.to(projection.weight.device, self.dtype).requires_grad_(False) if heads else None
        self.static_tree = static_tree
        config = lm.config.get_text_config()
        self.vocab: int = config.vocab_size
        self.context: int = getattr(config, "max_position_embeddings", None) or 1 << 20
        self._layer_types = set(getattr(config, "layer_types", None) or [])
        self._window: int | None = getattr(config, "sliding_window", None)  # positions a sliding layer sees
        if unknown := self._layer_types - {"full_attention", "sliding_attention"}:
            raise UnsupportedModel(f"{type(lm).__name__} has layers of type {min(unknown)!r}, which cannot attend a tree")
        self._hidden = torch.empty(0)
        with torch.inference_mode():
            try:
                probe = DynamicCache(config=lm.config)
                lm(input_ids=torch.zeros(1, 1, dtype=torch.long, device=self.device), past_key_values=probe)
                self.cache = KVCache(probe)
            except ValueError as error:
                raise UnsupportedModel(f"{type(lm).__name__} cannot attend a tree: {error}") from error

    def _remember_hidden(self, _module: object, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0]

    @property
    def num_heads(self) -> int:
        return len(self.heads) if self.heads is not None else 0

    @property
    def length(self) -> int:
        """Committed positions in the KV cache."""
        return self.cache.length

    @torch.inference_mode()
    def prefill(self, prompt: Tensor, room: int, all_rows: bool = False) -> Rows:
        """Start over with `prompt` [prompt]; `room` is how many further slots the decoding may use.

        Returns the last row, or every row if `all_rows`.
        """
        self.cache.reserve(len(prompt) + room)
        output = self.lm(
            input_ids=prompt.to(self.device).unsqueeze(0),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=0 if all_rows else 1,
        )
        self.cache.length = len(prompt)
        return Rows(self._hidden[0], output.logits[0])

    @torch.no_grad()
    def hidden_rows(self, ids: Tensor) -> Tensor:
        """The rows [batch, length, hidden] that heads read, of plain texts [batch, length], without the cache."""
        self.lm(input_ids=ids, use_cache=False, logits_to_keep=0)
        return self._hidden

    @torch.inference_mode()
    def guess(self, hidden: Tensor) -> Tensor:
        """The heads' logits [heads, vocab] at one hidden row [1, hidden]."""
        assert self.heads is not None
        return self.heads(hidden).squeeze(1)

    @torch.inference_mode()
    def verify(self, draft: Draft) -> Rows:
        """One forward pass over all nodes of a draft: each attends to the cache, its ancestors and itself."""
        position = draft.tree.depth + self.length
        if self.length + draft.tree.max_depth >= self.context:
            position = position.clamp(max=self.context - 1)  # nodes there are never committed, but must be legal
        output = self.lm(
            input_ids=draft.token.unsqueeze(0),
            attention_mask=self._attention_mask(draft.tree),
            position_ids=position.unsqueeze(0),
            past_key_values=self.cache,
            use_cache=True,
        )
        return Rows(self._hidden[0], output.logits[0])

    def keep(self, path: Tensor, tokens: int) -> None:
        """Commit the first `tokens` nodes of `path` [max_depth + 1]: their KV entries become the sequence's next."""
        if len(path) > 1:  # a lone root already lies where it belongs
            self.cache.keep(path)
        self.cache.length += tokens

    def _attention_mask(self, tree: Tree) -> Tensor | dict[str, Tensor]:
        """Additive mask [1, 1, nodes, length + nodes]; one by kind of layer where the family takes them so."""
        never = torch.finfo(self.dtype).min
        among = tree.mask(hidden=never, visible=0.0, dtype=self.dtype)
        full = torch.cat((among.new_zeros(1, 1).expand(len(tree), self.length), among), dim=1)
        masks = {"full_attention": full[None, None]}
        if self._window is not None:
            if self.length + tree.max_depth >= self._window:  # before that the window holds everything
                position = torch.cat((torch.arange(self.length, device=self.device), tree.depth + self.length))
                distance = tree.depth.unsqueeze(1) + self.length - position
                full = full.masked_fill(distance >= self._window, never)
            masks["sliding_attention"] = full[None, None]
        if self._layer_types:
            return {kind: masks[kind] for kind in self._layer_types}
        return full[None, None]

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
                path, _ = tree.path_to(torch.tensor([leaf], device=self.device))
                path = path[: int(tree.depth[leaf]) + 1]
                plain = self.lm(input_ids=torch.cat((prompt, token[path])).unsqueeze(0)).logits[0, 6:].float()
                distance = (in_tree[path] - plain).norm() / plain.norm().clamp(min=1e-6)
                if not distance < (1e-3 if self.dtype == torch.float32 else 0.1):
                    raise ValueError(f"a verified tree differs from plain text by {distance:.2g} (relative)")
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
            raise UnsupportedModel(f"{type(self.lm).__name__} cannot attend a tree: {error}") from error
