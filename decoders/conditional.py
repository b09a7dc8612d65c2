"""Trees by conditional probabilities: each guess is judged by the guesses before it.

MEDUSA's heads do not see each other's guesses, so the product of their marginals fills a tree with combinations that no text
contains. Here p(x | path) mixes, at every depth, the head's marginal with what the base model itself predicted after the
path's last two tokens earlier in this conversation (`decoders.successors`), by weights that are fitted on held-out text
(`decoders.calibration`). Successors that no head guessed are candidates too, and beyond the heads' depth they stand alone.

The tree is the exact top of that score among the candidates. A conditional never exceeds 1, so no path beats its own prefix:
the best paths of each level are among the continuations of the best of the level before, and the tree is the best of all
levels together.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from decoders.base import Decoder, check_nodes
from decoders.calibration import Calibration
from decoders.model import Model, Rows
from decoders.registry import register
from decoders.successors import NOTHING, Known, Successors
from decoders.tree import Draft, Tree


@register("conditional")
@dataclass
class Conditional(Decoder):
    reads_prompt: ClassVar[bool] = True

    nodes: int | str = 64  # or "auto"
    topk: int = 32  # guesses of each head
    depth: int | None = None  # None: two levels deeper than there are heads
    successors: int = 4  # that are remembered of a token or a pair

    def __post_init__(self) -> None:
        check_nodes(self.nodes)
        for name, value in (("topk", self.topk), ("depth", self.depth), ("successors", self.successors)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.levels = model.num_heads + 2 if self.depth is None else self.depth
        for name, value in (("topk", self.topk), ("successors", self.successors)):
            if value > model.vocab:
                raise ValueError(f"{name} is {value}, but the vocabulary has {model.vocab} tokens")
        calibration = model.calibration or Calibration()
        device = model.device
        self.table = Successors(model.vocab, self.successors, device)

        def by_depth(values: tuple) -> list:
            return [values[min(depth, len(values) - 1)] for depth in range(self.levels)]

        self.head_weight = torch.tensor(by_depth(calibration.head_weight), device=device)  # [levels, evidence]
        self.successor_weight = torch.tensor(calibration.successor_weight, device=device)  # [evidence]
        self.floor = calibration.floor
        self.coverage = by_depth(calibration.coverage)
        self.beyond = calibration.beyond
        # Where each level's continuations start in the row of all nodes, the root at 0.
        self.most = self.max_nodes - 1
        widths, starts = [1], [0]
        for level in range(self.levels):
            candidates = self.successors + (self.topk if level < model.num_heads else 0)
            starts.append(starts[-1] + widths[-1])
            widths.append(min(self.most, widths[-1] * candidates))
        self.widths, self.starts = widths, starts
        self.depths = torch.arange(self.levels + 1, device=device).repeat_interleave(torch.tensor(widths, device=device))
        self.rank = torch.arange(min(self.max_nodes, len(self.depths)), device=device)
        self.steps_up = torch.arange(1, self.levels + 1, device=device)

    @property
    def max_depth(self) -> int:
        return self.levels

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.table.forget()
        prompt = prompt.to(self.model.device)
        # The latest first, as of equal rows the first counts.
        self.table.learn(prompt.roll(1).flip(0)[:-1], prompt.flip(0)[:-1], rows.logits.flip(0)[:-1])
        self.last = prompt[-1:]  # the token before the root

    def observe(self, draft: Draft, verified: Rows, best: Tensor) -> None:
        before = draft.token.take(draft.tree.parent)
        before[:1] = self.last
        self.table.learn(before, draft.token, verified.logits)
        self.last = draft.token.index_select(0, best)

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        heads = self.model.guess(hidden).float().log_softmax(-1) if self.model.num_heads else None  # [heads, vocab]
        guess_log_prob, guess = heads.topk(self.topk) if heads is not None else (None, None)  # [heads, topk]
        before, token, score = self.last, root, torch.zeros(1, device=root.device)
        tokens, scores, parents = [token], [score], [torch.zeros_like(token)]
        for level in range(self.levels):
            known = self.table.after(before, token)
            if level < self.model.num_heads:
                candidate, conditional = self._mixed(level, heads[level], guess[level], guess_log_prob[level], known)
            else:
                candidate, conditional = known.token, self._alone(known)
            paths = (score.unsqueeze(1) + conditional).flatten()
            score, at = paths.topk(self.widths[level + 1])
            parent = at.div(candidate.shape[1], rounding_mode="floor")
            before, token = token.index_select(0, parent), candidate.take(at)
            tokens.append(token)
            scores.append(score)
            parents.append(parent + self.starts[level])
        return self._tree(torch.cat(tokens), torch.cat(scores), torch.cat(parents))

    def _mixed(self, level: int, head: Tensor, guess: Tensor, marginal: Tensor, known: Known) -> tuple[Tensor, Tensor]:
        """Candidates [parents, topk + k] and log p of each given its parent, where a head has guesses [topk]."""
        parents = len(known.token)
        bonus = self._bonus(known)
        same = guess.unsqueeze(1).eq(known.token.unsqueeze(1))  # [parents, topk, k]
        of_guesses = torch.where(same, bonus.unsqueeze(1), 0.0).sum(-1)  # [parents, topk]
        marginal = torch.cat((marginal.expand(parents, -1), head.take(known.token)), 1)
        no_more = same.any(1).logical_or(known.log_prob == NOTHING)  # successors that are no further candidates
        bonus = torch.cat((of_guesses, bonus.masked_fill(no_more, NOTHING)), 1)
        weight = self.head_weight[level].take(known.evidence).unsqueeze(1)
        conditional = torch.addcmul(bonus, weight, marginal).log_softmax(-1) + self.coverage[level]
        return torch.cat((guess.expand(parents, -1), known.token), 1), conditional

    def _alone(self, known: Known) -> Tensor:
        """log p of every successor [parents, k] at depths that no head reaches."""
        bonus = self._bonus(known).masked_fill(known.log_prob == NOTHING, NOTHING)
        return bonus.log_softmax(-1).minimum(bonus) + self.beyond

    def _bonus(self, known: Known) -> Tensor:
        """What being a known successor adds to a token's score [parents, k], before it is normalised."""
        return self.successor_weight.take(known.evidence).unsqueeze(1) * torch.log1p(known.log_prob.exp() / self.floor)

    def _tree(self, token: Tensor, score: Tensor, parent: Tensor) -> Draft:
        """The best nodes of all levels together, most likely first; the root is always the first."""
        best, chosen = score.topk(len(self.rank))
        place = torch.zeros_like(parent).scatter_(0, chosen, self.rank)
        above = place.take(parent.index_select(0, chosen))  # [nodes] parents in the new numbering
        line = [self.rank]
        for _ in range(self.levels - 1):
            line.append(above.index_select(0, line[-1]))
        depth = self.depths.index_select(0, chosen)
        up = (depth.unsqueeze(1) - self.steps_up).clamp(min=0)  # generations from each node up to its line's entries
        return Draft(Tree(depth, above, torch.stack(line, 1).gather(1, up)), token.index_select(0, chosen), best)
