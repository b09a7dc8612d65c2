"""A base language model, its tokenizer and its Medusa heads behind one small interface.

    prefill        read a prompt
    embed, project the embedding of tokens, and the output projection of hidden states
    draft_logits   the heads' logits at one hidden state
    verify         one forward pass over all nodes of a tree
    keep, advance  commit the accepted path

Any causal LM of transformers that takes a 4D attention mask and positions works unmodified. Whether
a model family really attends along the tree is tested by `check_tree_attention`.

`decoders.engine` holds a faster version of the same model.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from decoders.model.attention import AttentionMasks
from decoders.model.cache import KVCache
from decoders.model.heads import MedusaHeads
from decoders.model.projection import Projections, projected, scale_between
from decoders.model.tree_check import check_far, check_near, steady_context
from decoders.tree import Draft

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Rows:
    """The base model's outputs at some positions."""

    hidden_states: Tensor  # [rows, hidden], as the output projection and the heads read them.
    logits: Tensor  # [rows, vocab]


@dataclass(frozen=True, eq=False)
class Verified(Rows):
    """The base model's outputs at every node of a draft."""

    draft: Draft  # As it was read. An engine may have moved it to other memory.


class UnsupportedModel(ValueError):
    """The model cannot verify a tree in one forward pass."""


def _plain(asked: GenerationConfig) -> GenerationConfig:
    """Greedy decoding without anything else. The special tokens are those that were asked for."""
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    return GenerationConfig(**{name: getattr(asked, name, None) for name in names})


class Model:
    """One loaded model with one sequence in its cache."""

    # Whether all steps over the same number of nodes run the same operations on the same
    # addresses, which CUDA graphs need. An engine can switch it on.
    static_shapes: bool = False

    def __init__(
        self,
        lm: PreTrainedModel,
        heads: MedusaHeads | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> None:
        """UnsupportedModel where the language model cannot attend a tree.

        heads: None for a plain causal LM. tokenizer: for decoders that read text. None: there is
        none.
        """
        self.tokenizer = tokenizer
        self.lm = lm.eval().requires_grad_(False)
        # transformers' `generate` would obey the checkpoint's penalties, limits and beams, which no
        # other decoder knows.
        if (plain := _plain(lm.generation_config)) != lm.generation_config:
            lm.generation_config = plain
        self.dtype = lm.dtype
        self.device: torch.device = lm.get_input_embeddings().weight.device
        projection = lm.get_output_embeddings()
        if projection is None:
            raise UnsupportedModel(
                f"{type(lm).__name__} has no output projection that heads could sit beside"
            )
        projection.register_forward_pre_hook(self._remember_hidden_states)
        self._hidden_states = torch.empty(0)  # [batch, rows, hidden] of the last forward.
        self._projects_last_row = False
        self.heads: MedusaHeads | None = None
        if heads is not None:
            self.heads = heads.to(self.device, self.dtype).requires_grad_(False)
        config = lm.config.get_text_config()
        self.vocab: int = config.vocab_size
        self.hidden: int = projection.weight.shape[1]  # Size of a hidden state.
        self.context: int = getattr(config, "max_position_embeddings", None) or 1 << 20
        # The name of the cache argument. Newer releases of transformers changed it.
        parameters = inspect.signature(lm.forward).parameters
        self.cache_keyword = "cache" if "cache" in parameters else "past_key_values"
        try:
            self.masks = AttentionMasks(config, self.dtype)
            cache, logits = self._probe()
            self.cache = KVCache(cache)
        except ValueError as error:
            raise UnsupportedModel(f"{type(lm).__name__} cannot attend a tree: {error}") from error
        # The family's own scaling of logits.
        self.logit_scale = scale_between(projected(projection, self._hidden_states)[0], logits[0])

    def _remember_hidden_states(
        self, _module: object, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...] | None:
        """Keep what the output projection reads. It may then be made to read the last row alone."""
        self._hidden_states = inputs[0]
        return (inputs[0][:, -1:],) if self._projects_last_row else None

    @torch.inference_mode()
    def _probe(self) -> tuple[DynamicCache, Tensor]:
        """A stock cache after one forward pass over one token, and its logits [1, 1, vocab]."""
        cache = DynamicCache(config=self.lm.config)
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        output = self.lm(input_ids=token, **{self.cache_keyword: cache})
        return cache, output.logits

    @contextmanager
    def as_loaded(self) -> Iterator[None]:
        """The language model without any change of ours in it, for comparisons."""
        yield

    @property
    def num_heads(self) -> int:
        return len(self.heads) if self.heads is not None else 0

    @property
    def length(self) -> int:
        """Committed positions in the KV cache."""
        return self.cache.length

    def reserve(self, slots: int) -> None:
        """Forget everything, and make room for `slots` positions. A second call costs nothing."""
        self.cache.reserve(slots)

    def release(self) -> None:
        """Forget everything, and give back all memory but the weights'."""
        self.cache.release()
        self._hidden_states = torch.empty(0)
        if self.device.type != "cpu":
            torch.accelerator.empty_cache()

    @torch.inference_mode()
    def wipe(self) -> None:
        """Forget everything, and leave no NaN in the cache that a later step could read."""
        self.cache.wipe()

    @torch.inference_mode()
    def prefill(
        self, prompt: Tensor, room: int, all_rows: bool = False, all_logits: bool = True
    ) -> Rows:
        """Start over with `prompt` [prompt]. The last row is returned, or every row if `all_rows`.

        room: further slots that decoding may use. all_logits: False leaves out the logits of every
        row but the last, which take time where the vocabulary is large.
        """
        self.reserve(len(prompt) + room)
        self._projects_last_row = all_rows and not all_logits
        try:
            output = self.lm(
                input_ids=prompt.to(self.device).unsqueeze(0),
                use_cache=True,
                logits_to_keep=0 if all_rows else 1,
                **{self.cache_keyword: self.cache},
            )
        finally:
            self._projects_last_row = False
        self.cache.length = len(prompt)
        return self._rows(output.logits)

    @torch.no_grad()
    def hidden_states_of(self, ids: Tensor) -> Tensor:
        """The hidden states [batch, length, hidden] of plain texts [batch, length], uncached."""
        with self.as_loaded():  # The changes are for few rows, and may not work under autocast.
            self.lm(input_ids=ids, use_cache=False, logits_to_keep=0)
        return self._hidden_states

    def embed(self, token: Tensor) -> Tensor:
        """The embeddings [..., hidden] of tokens [...]. A family's own scaling is not applied."""
        return self.lm.get_input_embeddings()(token.to(self.device))

    @property
    def projection(self) -> Projections:
        """What makes the model's logits of hidden states, a family's own scaling included."""
        return Projections([self.lm.get_output_embeddings()], self.logit_scale)

    def project(self, hidden_states: Tensor) -> Tensor:
        """The model's logits of hidden states [..., hidden], float32 [..., vocab]."""
        return self.projection(hidden_states)

    @torch.inference_mode()
    def draft_logits(
        self, hidden_state: Tensor, num_heads: int | None = None, heads: MedusaHeads | None = None
    ) -> Tensor:
        """The logits [heads, vocab] that the heads have at one hidden state [1, hidden].

        num_heads: how many heads, from the first on. None: all. heads: used in place of the model's
        own, such as its own narrowed to fewer tokens. None: the model's own.
        """
        heads = self.heads if heads is None else heads
        assert heads is not None
        return heads(hidden_state, num_heads).squeeze(1)

    @torch.inference_mode()
    def verify(self, draft: Draft, first: int = 0) -> Verified:
        """One forward pass over all nodes. Each attends to the cache, its ancestors and itself.

        first: the nodes before this one are not read again, and have no rows in the result. The
        last call, with nothing committed since, has read them.
        """
        committed = self.length
        self.cache.length += first
        try:
            rows = self.forward(draft, committed, committed + len(draft.tree), first)
        finally:
            self.cache.length = committed
        return Verified(rows.hidden_states, rows.logits, draft)

    def forward(self, draft: Draft, committed: int | Tensor, width: int, first: int = 0) -> Rows:
        """The forward pass of `verify`.

        committed: number of positions, an int or [1]. width: slots of the cache to read, from 0 on.
        first: as in `verify`.
        """
        position = draft.tree.depth + committed
        if not isinstance(committed, int) or committed + draft.tree.max_depth >= self.context:
            # Nodes beyond the context are never committed, but their positions must be legal.
            position = position.clamp(max=self.context - 1)
        output = self.lm(
            input_ids=draft.legal_token[first:].unsqueeze(0),
            attention_mask=self.masks.of(draft.tree, committed, width, first),
            position_ids=position[first:].unsqueeze(0),
            use_cache=True,
            **{self.cache_keyword: self.cache},
        )
        return self._rows(output.logits)

    def _rows(self, logits: Tensor) -> Rows:
        """The rows of the last forward, on `device` even if the model is spread over several."""
        return Rows(self._hidden_states[0].to(self.device), logits[0].to(self.device))

    def settle(
        self, operations: Callable[[Verified], T], verified: Verified, *captured_for: object
    ) -> T:
        """Run what follows a forward: accept, commit, and propose again.

        captured_for: the drafter and the rule, by which an engine tells one graph from another.
        """
        return operations(verified)

    def keep(self, path: Tensor) -> None:
        """Move the keys and values of the nodes `path` [depth] to the slots after the root's."""
        if len(path) > 0:
            self.cache.keep(path, self.length)

    def advance(self, tokens: int) -> None:
        """Commit the next `tokens` slots."""
        self.cache.length += tokens

    @torch.inference_mode()
    def check_tree_attention(self) -> None:
        """Compare verified trees with their paths as plain text, near and far.

        `context` is lowered to the positions for which they can be the same. UnsupportedModel where
        they differ.
        """
        try:
            check_near(self)
            self.context = steady_context(self)
            check_far(self)
        except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
            raise UnsupportedModel(
                f"{type(self.lm).__name__} cannot attend a tree: {error}"
            ) from error
        finally:
            self.release()
