"""Another, smaller language model drafts: speculative decoding as first published.

(Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318.) The draft model
has a KV cache of its own over the same text. In each step it first reads the tokens that were kept.
Then a tree grows level by level (`decoders.beam`): the draft model reads the most likely nodes
of a level in one forward, and proposes the `topk` likeliest next tokens of each. `topk=1` drafts a
chain.

How the draft model samples does not matter: at any temperature the base model decides.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decoders.beam import Beam
from decoders.decoder import Decoder, check_at_least_one
from decoders.kept_tokens import KeptTokens
from decoders.model.model import Model, Rows, Verified
from decoders.tree import NO_GUESS, Draft, Tree

DRAFTING = "draft model"  # The name under which the harness hands it over.


def check_vocabulary(drafting: Model, base: Model, folder: str, tokens: int | None = None) -> None:
    """ValueError where a model cannot draft for another, as it has other tokens.

    tokens: how many both must have at least. None: both must have equally many.
    """
    fewest = min(drafting.vocab, base.vocab)
    if drafting.vocab != base.vocab and (tokens is None or tokens > fewest):
        raise ValueError(
            f"{folder!r} has a vocabulary of {drafting.vocab} tokens, and the base model one of "
            f"{base.vocab}; a draft model must have the same vocabulary"
        )


@dataclass
class DraftModel(Decoder):
    """A smaller language model, `files[DRAFTING]`, drafts level by level."""

    any_depth: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = (DRAFTING,)

    model: str | None = None  # Folder or hub id of the draft model.
    nodes: int | str = 16  # Or "auto".
    topk: int = 4  # Nodes extended on each level, and tokens proposed after each of them.
    depth: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(topk=self.topk, depth=self.depth)
        if not self.model:
            raise ValueError("it needs a model that drafts: draft:model=FOLDER, or a hub id")
        self.folder = self.model  # `setup` puts the base model in place of the option.

    def path_of(self, file: str) -> str | None:
        return self.folder

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.drafting: Model = self.files[DRAFTING]
        # Ids beyond a tokenizer's tokens are padding, and stand for no text.
        known = [len(each.tokenizer) for each in (self.drafting, model) if each.tokenizer]
        check_vocabulary(self.drafting, model, self.folder, max(known, default=None))
        nodes = super().max_nodes
        levels = min(self.depth, nodes - 1)
        self.search = Beam(nodes, self.topk, self.topk, levels, model)
        # Long enough for the new text of a step: a whole kept path and the next root.
        self.chain = Tree.from_parent([0, *range(levels)]).to(model.device)

    @property
    def max_nodes(self) -> int:
        return min(super().max_nodes, sum(self.search.widths))

    @property
    def max_depth(self) -> int:
        return self.search.depth

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.kept = KeptTokens()
        drafting = self.drafting
        drafting.static_shapes = self.model.static_shapes
        # Whether the text still fits into the draft model's context.
        self.fits = self.max_depth > 0 and len(prompt) <= drafting.context
        if self.fits:
            beyond = len(self.chain) + self.search.most_extended
            room = self.model.cache.capacity - len(prompt) + beyond
            if drafting.static_shapes:  # A NaN of an earlier turn would spoil such forwards.
                drafting.wipe()
            drafting.prefill(self._known(prompt), room)

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self.kept.observe(draft, node)

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        text, depth = self.kept.new(root), self.draft_depth or self.max_depth
        longest = self.drafting.length + len(text) + depth - 1  # The last level is not read.
        self.fits = self.fits and longest <= self.drafting.context
        if not self.fits:
            return Draft.of_root(root)
        levels = _Levels(self.drafting, self._known(root), self._read(text), depth)
        tokens = self.model.vocab  # Those that the base model can verify.

        def logits_of(parent: Tensor, token: Tensor) -> Tensor:
            return levels.logits_of(parent, token)[:, :tokens]

        draft = self.search.grow(root, logits_of, depth)
        self.drafting.advance(1)  # The root stays in its cache. The levels are overwritten.
        return draft

    def _known(self, token: Tensor) -> Tensor:
        """The tokens as the draft model reads them: it may have fewer for padding."""
        return token.clamp(max=self.drafting.vocab - 1)

    def _read(self, text: list[int]) -> Tensor:
        """The draft model's logits [1, vocab] after the new part of the text.

        All of it but the root, which is last, is committed to the draft model's cache.
        """
        device, most = self.model.device, len(self.chain)
        for start in range(0, len(text), most):
            piece = text[start : start + most]
            nodes = most if self.drafting.static_shapes else len(piece)
            token = torch.tensor(piece + (nodes - len(piece)) * [NO_GUESS], device=device)
            verified = self.drafting.verify(Draft(self.chain.truncated(nodes), self._known(token)))
            is_last = start + most >= len(text)
            self.drafting.advance(len(piece) - is_last)
        return verified.logits[len(piece) - 1 : len(piece)]


class _Levels:
    """A tree that the draft model reads level by level."""

    def __init__(self, model: Model, root: Tensor, behind_root: Tensor, depth: int) -> None:
        """behind_root: logits [1, vocab] after the root, whose keys and values are in the cache.

        depth: levels of the tree below the root.
        """
        self.model = model
        self.behind_root = behind_root
        none = torch.zeros_like(root)
        self.draft = Draft(Tree(none, none, none.unsqueeze(1).expand(1, depth)), root)
        self.level = -1  # The last level that was read.
        self.first = 0  # Its first node.

    def logits_of(self, parent: Tensor, token: Tensor) -> Tensor:
        """The logits [nodes, vocab] after the given nodes. The first call is for the root.

        parent: [nodes], by index in the level above. token: [nodes].
        """
        self.level += 1
        if self.level == 0:
            return self.behind_root.float()
        tree, first = self.draft.tree, len(self.draft.token)
        node = torch.arange(first, first + len(token), device=token.device)
        parent = parent + self.first
        above = tree.ancestors.index_select(0, parent)[:, : self.level - 1]
        itself = node.unsqueeze(1).expand(-1, tree.max_depth - above.shape[1])
        grown = Tree(
            torch.cat((tree.depth, torch.full_like(node, self.level))),
            torch.cat((tree.parent, parent)),
            torch.cat((tree.ancestors, torch.cat((above, itself), 1))),
        )
        self.draft, self.first = Draft(grown, torch.cat((self.draft.token, token))), first
        return self.model.verify(self.draft, first).logits.float()
