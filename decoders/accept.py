"""Decides which drafted tokens are accepted, and which token comes next.

A rule reads the verified logits once. For every node it decides whether the node may follow its
parent, and which token would come next. A node survives when it and all its ancestors are allowed.
The path to the deepest survivor is kept. At temperature 0 the rule is `Exact`. Above it:

    Sample               "lossless": one sample per position from the base distribution. A child is
                         allowed when it equals its parent's sample. Exact for any tree.
    Sample(typical=...)  "typical-sampled": the same from the typically truncated distribution.
    Threshold            "typical", MEDUSA's rule: a child is allowed when its probability exceeds
                         min(epsilon, alpha * exp(-entropy)). The most likely token follows. Not
                         lossless.

Samples are drawn by the Gumbel trick: argmax(log p + noise[position]) is a sample of p. The noise
depends on (seed, position) alone, so all decoders draw the same sample for a position, whichever
step reaches it. Their answers can therefore be compared token for token at any temperature. All
nodes of one depth share one row of noise. The kept tokens are still independent draws: only one
node of each depth is kept, and a tree is built before the noise of its positions is used.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.acceptance import ACCEPTANCES, Typical
from decoders.tree import Draft, Tree

NO_TOKEN = -1
NOISE_BLOCK = 64  # Positions whose noise is made at once.
LEAST_DRAW = 2.0**-24  # Of an exponential distribution. CUDA draws none that is smaller.


@dataclass(frozen=True, eq=False)
class Verdict:
    """A rule's decision on every node of a verified draft."""

    # [nodes] bool: whether a node may follow its parent. The root's entry is ignored.
    allowed: Tensor
    next_token: Tensor  # [nodes] int64: what follows if the path ends here, or NO_TOKEN.
    # [nodes] log probability of each path under the base model. It decides among equally deep
    # survivors. None: the first of them is chosen.
    path_log_prob: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Kept:
    """The path that a step keeps."""

    node: Tensor  # [1] its last node.
    depth: Tensor  # [1] drafted tokens on it.
    path: Tensor  # [max_depth] its nodes after the root, padded with the last one.
    tokens: Tensor  # [max_depth] the tokens of `path`.
    next_token: Tensor  # [1] the next root, or NO_TOKEN.


class Rule(ABC):
    """How drafted tokens are accepted."""

    # Key of the CUDA graph that may replay this rule: everything that the rule depends on besides
    # its arguments. None: its tensor operations differ from step to step, and cannot be replayed.
    constants: Hashable | None = None

    @abstractmethod
    def scores(self, logits: Tensor, length: int) -> Tensor:
        """The scores [1, vocab] of the first root. The highest one wins.

        logits: [1, vocab], the last ones of the prompt. length: committed positions.
        """

    @abstractmethod
    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        """Judge every node from its logits [nodes, vocab].

        length: committed positions; the root stands at the next one.
        """

    def first_root(self, logits: Tensor, length: int) -> Tensor:
        """The first root [1], or NO_TOKEN. The arguments are those of `scores`."""
        return likeliest(self.scores(logits, length))

    def accept(self, draft: Draft, logits: Tensor, length: int) -> Kept:
        """The deepest allowed path. The arguments are those of `judge`."""
        verdict = self.judge(draft, logits, length)
        node, depth = deepest(draft.tree, verdict)
        path = draft.tree.ancestors.index_select(0, node).squeeze(0)
        next_token = verdict.next_token.index_select(0, node)
        return Kept(node, depth, path, draft.token.index_select(0, path), next_token)


def matching(draft: Draft, choice: Tensor) -> Verdict:
    """Allow the children that equal their parent's `choice` [nodes].

    Siblings differ, so at most one of them is allowed.
    """
    return Verdict(draft.token.eq(choice.index_select(0, draft.tree.parent)), choice)


def likeliest(scores: Tensor) -> Tensor:
    """The first token [rows] with the highest score of each row [rows, vocab].

    NO_TOKEN where the highest score is NaN or infinite. A score of -inf rules a token out; a row of
    nothing else gives NO_TOKEN as well.

    >>> inf, nan = torch.inf, torch.nan
    >>> likeliest(torch.tensor([[1, 3, -inf], [nan, 3, 2], [inf, 1, 2], [-inf] * 3])).tolist()
    [1, -1, -1, -1]
    """
    top, token = scores.max(-1)
    # A finite number minus itself is 0. For NaN and the infinities the difference is NaN.
    return token.masked_fill(top - top != 0, NO_TOKEN)


class Exact(Rule):
    """Temperature 0: the argmax."""

    constants = "exact"

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return logits

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        return matching(draft, likeliest(logits))


def typical_threshold(prob: Tensor, typical: Typical) -> Tensor:
    """The thresholds [..., 1] of distributions [..., vocab]; entropy is in nats."""
    entropy = torch.special.entr(prob).sum(-1, keepdim=True)
    return (typical.alpha * torch.exp(-entropy)).clamp(max=typical.epsilon)


class Threshold(Rule):
    """Typical acceptance at `temperature` > 0."""

    def __init__(self, temperature: float, typical: Typical) -> None:
        self.temperature = temperature
        self.typical = typical
        self.constants = (temperature, typical)

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return logits

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        tree = draft.tree
        prob = (logits.float() / self.temperature).softmax(-1)
        threshold = typical_threshold(prob, self.typical).squeeze(-1).index_select(0, tree.parent)
        # p(node | its parent)
        own = prob.index_select(0, tree.parent).gather(1, draft.legal_token.unsqueeze(1)).squeeze(1)
        own = own.masked_fill(draft.token < 0, 0.0)
        levels = torch.arange(tree.max_depth, device=own.device)
        is_ancestor = levels < tree.depth.unsqueeze(1)  # The rest of a row is padding.
        path_log_prob = own.log().take(tree.ancestors).where(is_ancestor, 0.0).sum(-1)
        return Verdict(own > threshold, likeliest(logits), path_log_prob)


class Sample(Rule):
    """One sample per position at `temperature` > 0.

    From the base distribution, from its nucleus of mass `top_p`, or from its typical part.
    """

    constants = None  # Every position has noise of its own.

    def __init__(
        self, temperature: float, seed: int, top_p: float = 1.0, typical: Typical | None = None
    ) -> None:
        self.temperature = temperature
        self.seed = seed
        self.top_p = top_p
        self.typical = typical
        self._blocks: dict[int, Tensor] = {}

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return self._noisy(logits, self._noise(logits, length, 1))

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        noise = self._noise(logits, length + 1, draft.tree.max_depth + 1)
        return matching(
            draft, likeliest(self._noisy(logits, noise.index_select(0, draft.tree.depth)))
        )

    def _noisy(self, logits: Tensor, noise: Tensor) -> Tensor:
        return self._truncated(logits.float() / self.temperature) + noise

    def _truncated(self, logits: Tensor) -> Tensor:
        """The logits with -inf for the tokens outside the nucleus or the typical part."""
        if self.typical is not None:
            prob = logits.softmax(-1)
            # A flat distribution may have nothing above its threshold. Its most likely token always
            # stays, and so does NaN.
            is_unlikely = (prob <= typical_threshold(prob, self.typical)) & (
                prob < prob.amax(-1, keepdim=True)
            )
            logits = logits.masked_fill(is_unlikely, float("-inf"))
        if self.top_p < 1.0:
            ordered, order = logits.sort(-1, descending=True)
            prob = ordered.softmax(-1)
            # The token that crosses top_p stays inside.
            is_outside = prob.cumsum(-1) - prob >= self.top_p
            logits = logits.masked_fill(is_outside.scatter(-1, order, is_outside), float("-inf"))
        return logits

    def _noise(self, like: Tensor, start: int, count: int) -> Tensor:
        """Gumbel noise [count, vocab] of the positions from `start` on.

        It is made a block of positions at a time. The blocks in use, the one before them and those
        after them are kept: the next call may be for fewer positions, or for earlier ones.
        """
        needed = range(start // NOISE_BLOCK, (start + count - 1) // NOISE_BLOCK + 1)
        self._blocks = {
            number: rows for number, rows in self._blocks.items() if number >= needed[0] - 1
        }
        parts = []
        for number in needed:
            if number not in self._blocks:
                self._blocks[number] = self._block(number, like)
            first = number * NOISE_BLOCK
            parts.append(self._blocks[number][max(0, start - first) : start + count - first])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _block(self, number: int, like: Tensor) -> Tensor:
        """The noise [NOISE_BLOCK, vocab] of a block of positions."""
        generator = torch.Generator(like.device).manual_seed(seed_of(self.seed, number))
        rows = torch.empty(NOISE_BLOCK, like.shape[-1], device=like.device)
        # Some devices draw zeros now and then. Their noise would be infinite.
        return rows.exponential_(generator=generator).clamp_(min=LEAST_DRAW).log_().neg_()


def make_rule(
    acceptance: str,
    temperature: float,
    seed: int,
    top_p: float,
    typical: Typical,
    drafts: bool = True,
) -> Rule:
    """The rule of one turn.

    drafts: whether the decoder drafts tokens. If not, there is nothing to accept, and the rule
    samples from the model whatever `acceptance` says. ValueError for an unknown `acceptance`.
    """
    if temperature == 0:
        return Exact()
    if acceptance == "lossless" or not drafts:
        return Sample(temperature, seed, top_p)
    if acceptance == "typical":
        return Threshold(temperature, typical)
    if acceptance == "typical-sampled":
        return Sample(temperature, seed, top_p, typical)
    raise ValueError(f"unknown acceptance {acceptance!r}; available: {', '.join(ACCEPTANCES)}")


def seed_of(*parts: object) -> int:
    """A seed below 2**63 that depends on every part, and is the same on every machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def deepest(tree: Tree, verdict: Verdict) -> tuple[Tensor, Tensor]:
    """The deepest node [1] whose whole path is allowed, and its depth [1].

    Of equally deep ones the most likely, then the first.

    >>> tree = Tree.from_parent([0, 0, 0, 1, 1, 3])
    >>> allowed = torch.tensor([False, True, False, False, True, True])
    >>> deepest(tree, Verdict(allowed, torch.zeros(6)))
    (tensor([4]), tensor([2]))
    """
    survives = verdict.allowed.take(tree.ancestors).all(-1)
    if verdict.path_log_prob is None:
        # Where no node survives, the maximum is the root's depth, 0.
        depth, node = (survives * tree.depth).max(0, keepdim=True)
        return node, depth
    # Likelihood decides only within a depth.
    score = tree.depth * 1000 + verdict.path_log_prob.clamp(min=-999)
    node = score.masked_fill(~survives, float("-inf")).argmax(0, keepdim=True)
    return node, tree.depth.index_select(0, node)
