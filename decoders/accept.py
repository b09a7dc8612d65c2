"""Which drafted tokens the base model accepts, and which token it wants next.

A rule reads the verified logits once and says of every node: allowed or not, and which token follows it. A node survives
when all its ancestors are allowed; the deepest survivor's path is kept. At temperature 0 the rule is `Exact`. Above it:

    Sample     "lossless": one sample per position from the base distribution; a child is allowed when it equals its
               parent's sample. Exact for any tree, and token for token what one-token-at-a-time sampling draws.
    Sample(typical=...)  "typical-sampled": the same from the typically truncated distribution.
    Threshold  "typical", MEDUSA's rule: a child is allowed when its probability exceeds
               min(epsilon, alpha * exp(-entropy)); the most likely token follows. Not lossless.

Samples are drawn by the Gumbel trick with noise that belongs to (seed, position): argmax(log p + noise[position]) is a
sample of p, and it is the same one whichever decoder asks and in whichever step. So decoders can be compared token for
token at any temperature. (One noise row serves all nodes of a depth; only one of them is on the path that is kept, and
no tree depends on noise ahead of it, so the kept tokens are independent draws.)
"""

import hashlib
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from decoders.tree import Draft, Tree

ACCEPTANCES = ("lossless", "typical", "typical-sampled")
NO_TOKEN = -1


@dataclass(frozen=True, eq=False)
class Verdict:
    """A rule's word on every node of a verified draft."""

    allowed: Tensor  # [nodes] bool, given its parent; the root is kept whatever it says here
    next_token: Tensor  # [nodes] int64, what the base model continues with if the path ends here; NO_TOKEN where it cannot
    path_log_prob: Tensor | None = (
        None  # [nodes] under the base model, to choose among equally deep survivors
    )


class Rule(Protocol):
    # What `judge` depends on beyond its arguments' tensors, where it is the same tensor operations every step; else None.
    constants: Hashable | None

    def scores(self, logits: Tensor, length: int) -> Tensor:
        """What the first root is the highest of [1, vocab], from the prompt's last logits; arguments as `first` has them."""
        ...

    def first(self, logits: Tensor, length: int) -> Tensor:
        """The first root [1] (or NO_TOKEN) from the prompt's last logits [1, vocab]; `length` positions are committed."""
        ...

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        """Judge every node from its logits [nodes, vocab]; `length` positions are committed, the root is the next."""
        ...


def matching(draft: Draft, choice: Tensor) -> Verdict:
    """Allow the children that are their parent's `choice` [nodes]. Siblings differ, so at most one of them is."""
    return Verdict(draft.token.eq(choice.index_select(0, draft.tree.parent)), choice)


def likeliest(scores: Tensor) -> Tensor:
    """The first token [rows] of the highest score in each row [rows, vocab]; NO_TOKEN where that is no finite number.

    NaN and infinity would be the highest, so either spoils its row. -inf is a token that cannot be, and a row of nothing else
    has none to choose.

    >>> inf, nan = torch.inf, torch.nan
    >>> likeliest(torch.tensor([[1.0, 3.0, -inf], [nan, 3.0, 2.0], [inf, 1.0, 2.0], [-inf, -inf, -inf]])).tolist()
    [1, -1, -1, -1]
    """
    top, token = scores.max(-1)
    return token.masked_fill(
        top - top != 0, NO_TOKEN
    )  # a number minus itself is 0; of NaN and the infinities it is NaN


class Exact:
    """Temperature 0: the argmax."""

    constants = "exact"

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return logits

    def first(self, logits: Tensor, length: int) -> Tensor:
        return likeliest(logits)

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        return matching(draft, likeliest(logits))


@dataclass(frozen=True)
class Typical:
    """The threshold of typical acceptance (Cai et al. 2024, section 2.3.1): min(epsilon, alpha * exp(-entropy))."""

    epsilon: float = 0.09
    alpha: float = 0.3

    def threshold(self, prob: Tensor) -> Tensor:
        """[..., 1] from distributions [..., vocab]; entropy in nats."""
        entropy = torch.special.entr(prob).sum(-1, keepdim=True)
        return (self.alpha * torch.exp(-entropy)).clamp(max=self.epsilon)


class Threshold:
    """Typical acceptance at `temperature` > 0."""

    def __init__(self, temperature: float, typical: Typical) -> None:
        self.temperature = temperature
        self.typical = typical
        self.constants = (temperature, typical)

    def scores(self, logits: Tensor, length: int) -> Tensor:
        return logits

    def first(self, logits: Tensor, length: int) -> Tensor:
        return likeliest(logits)

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        tree = draft.tree
        prob = (logits.float() / self.temperature).softmax(-1)
        threshold = self.typical.threshold(prob).squeeze(-1).index_select(0, tree.parent)
        own = (
            prob.index_select(0, tree.parent).gather(1, draft.legal_token.unsqueeze(1)).squeeze(1)
        )  # p(node | its parent)
        own = own.masked_fill(draft.token < 0, 0.0)
        on_line = torch.arange(tree.max_depth, device=own.device) < tree.depth.unsqueeze(
            1
        )  # the rest of a line is padding
        along = own.log().take(tree.lines).where(on_line, 0.0).sum(-1)
        return Verdict(own > threshold, likeliest(logits), along)


class Sample:
    """One sample per position at `temperature` > 0, from the base distribution or its nucleus / typical part."""

    constants = None  # every position has noise of its own

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

    def first(self, logits: Tensor, length: int) -> Tensor:
        return likeliest(self.scores(logits, length))

    def judge(self, draft: Draft, logits: Tensor, length: int) -> Verdict:
        noise = self._noise(logits, length + 1, draft.tree.max_depth + 1).index_select(
            0, draft.tree.depth
        )
        return matching(draft, likeliest(self._noisy(logits, noise)))

    def _noisy(self, logits: Tensor, noise: Tensor) -> Tensor:
        return self._truncated(logits.float() / self.temperature) + noise

    def _truncated(self, logits: Tensor) -> Tensor:
        if self.typical is not None:
            prob = logits.softmax(-1)
            # A flat enough distribution has nothing above its threshold; its most likely token always stays, and so does NaN.
            unlikely = (prob <= self.typical.threshold(prob)) & (prob < prob.amax(-1, keepdim=True))
            logits = logits.masked_fill(unlikely, float("-inf"))
        if self.top_p < 1.0:
            ordered, order = logits.sort(-1, descending=True)
            prob = ordered.softmax(-1)
            outside = (
                prob.cumsum(-1) - prob >= self.top_p
            )  # the token that crosses top_p stays inside
            logits = logits.masked_fill(outside.scatter(-1, order, outside), float("-inf"))
        return logits

    def _noise(self, like: Tensor, start: int, count: int, block: int = 64) -> Tensor:
        """Gumbel noise [count, vocab] of the positions from `start` on, made a block of positions at a time."""
        needed = range(start // block, (start + count - 1) // block + 1)
        self._blocks = {at: self._blocks.get(at, None) for at in needed}
        for at, rows in self._blocks.items():
            if rows is None:
                generator = torch.Generator(like.device).manual_seed(fold(self.seed, at))
                rows = torch.empty(block, like.shape[-1], device=like.device)
                self._blocks[at] = rows.exponential_(generator=generator).log_().neg_()
        rows = (
            torch.cat(list(self._blocks.values()))
            if len(self._blocks) > 1
            else self._blocks[needed[0]]
        )
        return rows.narrow(0, start - needed[0] * block, count)


def make_rule(
    acceptance: str,
    temperature: float,
    seed: int,
    top_p: float,
    typical: Typical,
    drafts: bool = True,
) -> Rule:
    """The rule of one turn. Acceptance is about drafted tokens: a decoder that drafts none samples from the model."""
    if temperature == 0:
        return Exact()
    if acceptance == "lossless" or not drafts:
        return Sample(temperature, seed, top_p)
    if acceptance == "typical":
        return Threshold(temperature, typical)
    if acceptance == "typical-sampled":
        return Sample(temperature, seed, top_p, typical)
    raise ValueError(f"unknown acceptance {acceptance!r}; available: {', '.join(ACCEPTANCES)}")


def fold(*parts: object) -> int:
    """A seed below 2**63 that depends on every part and is the same on every machine."""
    return (
        int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1
    )


def deepest(tree: Tree, verdict: Verdict) -> tuple[Tensor, Tensor]:
    """(node [1], its depth [1]) whose whole path is allowed and that is deepest; of equals the most likely, then the first.

    >>> tree = Tree.from_parent([0, 0, 0, 1, 1, 3])
    >>> allowed = torch.tensor([False, True, False, False, True, True])
    >>> deepest(tree, Verdict(allowed, torch.zeros(6)))
    (tensor([4]), tensor([2]))
    """
    alive = verdict.allowed.take(tree.lines).all(-1)
    if verdict.path_log_prob is None:
        depth, best = (alive * tree.depth).max(
            0, keepdim=True
        )  # where nothing is alive this is 0, the root
        return best, depth
    # Likelihood only decides within a depth.
    score = tree.depth * 1000 + verdict.path_log_prob.clamp(min=-999)
    best = score.masked_fill(~alive, float("-inf")).argmax(0, keepdim=True)
    return best, tree.depth.index_select(0, best)
