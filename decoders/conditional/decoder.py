"""Trees by conditional probabilities: each guess is judged by the guesses before it.

MEDUSA's heads do not see each other's guesses, so the product of their marginals fills a tree with combinations that no text
contains. Here p(x | path) mixes, at every depth, the head's marginal with what the base model itself predicted after the
path's last two tokens earlier in this conversation (`decoders.conditional.successors`), by weights that are fitted on held-out text
(`decoders.conditional.calibration`). Successors that no head guessed are candidates too, and beyond the heads' depth they stand alone.

The tree is the exact top of that score among the candidates. A conditional never exceeds 1, so no path beats its own prefix:
the best paths of each level are among the continuations of the best of the level before, and the tree is the best of all
levels together.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from decoders.conditional.calibration import Calibration
from decoders.conditional.successors import CHUNK, NOTHING, Known, Successors
from decoders.decoder import Decoder
from decoders.draft_vocabulary import DraftVocabulary, check_vocab
from decoders.model.model import Model, Rows
from decoders.registry import register
from decoders.tree import NO_GUESS, Draft, Tree


@register("conditional")
@dataclass
class Conditional(Decoder):
    reads_prompt: ClassVar[bool] = True
    any_depth: ClassVar[bool] = True
    captures: ClassVar[bool] = True

    nodes: int | str = 64  # or "auto"
    topk: int = 32  # guesses of each head
    depth: int | None = None  # None: two levels deeper than there are heads
    successors: int = 4  # that are remembered of a token or a pair
    context: int = 2  # tokens that successors are known by: 1 or 2
    heads: bool = True  # whether the heads are asked at all
    vocab: str | None = (
        None  # that heads guess from: "all" or "frequent". None: all; where nodes=auto the frequent, if known
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (
            ("topk", self.topk),
            ("depth", self.depth),
            ("successors", self.successors),
        ):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.context not in (1, 2):
            raise ValueError(f"context is {self.context}; expected 1 or 2")
        check_vocab(self.vocab)
        if self.vocab is not None and not self.heads:
            raise ValueError("vocab is what heads guess from; with heads=false leave it out")

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.guessed = model.num_heads if self.heads else 0  # levels that heads have guesses for
        self.levels = model.num_heads + 2 if self.depth is None else self.depth
        self.vocabulary = DraftVocabulary(model, self.vocab, self.auto and self.heads)
        self.vocabulary.check_topk(self.topk)
        if self.successors > model.vocab:
            raise ValueError(
                f"successors is {self.successors}, but the vocabulary has {model.vocab} tokens"
            )
        calibration = model.calibration or Calibration()
        weight, floor = calibration.successor_weight, calibration.floor
        self.table = Successors(
            model.vocab, self.successors, weight, floor, model.device, pairs=self.context == 2
        )

        def by_depth(values: tuple) -> list:
            return [
                values[min(depth, len(values) - 1)]
                for depth in range(min(self.levels, self.guessed))
            ]

        self.head_weight = torch.tensor(
            by_depth(calibration.head_weight), device=model.device
        )  # [levels, evidence]
        self.last = torch.zeros(
            1, dtype=torch.long, device=model.device
        )  # the token before the root
        # The widths of the levels, the root's first, and by node what is the same for all nodes of a level.
        widths, starts = [1], [0]
        for level in range(self.levels):
            candidates = self.successors + (self.topk if level < self.guessed else 0)
            starts.append(starts[-1] + widths[-1])
            widths.append(min(self.max_nodes - 1, widths[-1] * candidates))
        covered = list(
            accumulate(
                by_depth(calibration.coverage) + [calibration.beyond] * self.levels, initial=0.0
            )
        )
        spread = torch.tensor(widths)
        self.widths = widths
        self.parents_start = (
            torch.tensor([0, *starts[:-1]]).repeat_interleave(spread).to(model.device)
        )
        self.covered = (
            torch.tensor(covered[: self.levels + 1]).repeat_interleave(spread).to(model.device)
        )
        self.depths = torch.arange(self.levels + 1).repeat_interleave(spread).to(model.device)
        self.order = torch.arange(self.max_nodes, device=model.device)
        self.generation = torch.arange(1, self.levels + 1, device=model.device)

    @property
    def max_depth(self) -> int:
        return self.levels

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.vocabulary.start(prompt)
        self.table.forget()
        prompt = prompt.to(self.model.device)
        # The latest first, as of equal rows the first counts.
        self.table.learn(prompt.roll(1).flip(0)[:-1], prompt.flip(0)[:-1], rows.logits.flip(0)[:-1])
        self.last.copy_(prompt[-1:])
        self.unlearned: list[
            tuple[Tensor, Tensor]
        ] = []  # the latest tokens [1] and their logits [1, vocab]

    def observe(self, draft: Draft, verified: Rows, best: Tensor) -> None:
        if len(draft.tree) == 1 and not self.model.static_shapes:
            # Nothing was drafted, maybe for long: what it teaches can wait until something is.
            self.unlearned.append((draft.token, verified.logits))
            if len(self.unlearned) == CHUNK:
                self._catch_up()
            return
        before = draft.token.take(draft.tree.parent)
        before[:1] = self.last
        self.table.learn(before, draft.token, verified.logits)
        torch.index_select(draft.token, 0, best, out=self.last)

    def _catch_up(self) -> None:
        if self.unlearned:
            token, logits = (
                torch.cat(each) for each in zip(*reversed(self.unlearned), strict=True)
            )
            self.table.learn(torch.cat((token[1:], self.last)), token, logits)
            self.last.copy_(token[:1])
            self.unlearned.clear()

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        self._catch_up()
        depth = self.budget.depth or self.levels
        if self.guessed:
            heads = self.vocabulary.guess(hidden, min(depth, self.guessed))  # [heads, tokens]
            heads = heads.log_softmax(-1).nan_to_num(nan=NOTHING)
            guess_log_prob, places = heads.topk(self.topk)  # [heads, topk]
            guess, heads = self.vocabulary.token(places), self.vocabulary.with_others(heads)
        before, token, score = self.last, root, torch.zeros(1, device=root.device)
        tokens, scores, parents = [token], [score], [torch.zeros_like(token)]
        for level, width in enumerate(self.widths[1 : 1 + depth]):
            known = self.table.after(before, token)
            if level < self.guessed:
                candidate, mixed = self._mixed(
                    level, heads[level], guess[level], guess_log_prob[level], known
                )
                conditional = mixed.log_softmax(-1)
            else:
                candidate, conditional = (
                    known.token,
                    known.bonus.log_softmax(-1).minimum(known.bonus),
                )
            score, at = (score.unsqueeze(1) + conditional).flatten().topk(width)
            parent = at.div(candidate.shape[1], rounding_mode="floor")
            before, token = token.index_select(0, parent), candidate.take(at)
            tokens.append(token)
            scores.append(score)
            parents.append(parent)
        token, score = torch.cat(tokens), torch.cat(scores)
        token = token.masked_fill(
            score < NOTHING / 2, NO_GUESS
        )  # where nothing was known, and all that would follow it
        covered, parents_start = self.covered[: len(token)], self.parents_start[: len(token)]
        return self._tree(depth, token, score + covered, torch.cat(parents) + parents_start)

    def _mixed(
        self, level: int, head: Tensor, guess: Tensor, marginal: Tensor, known: Known
    ) -> tuple[Tensor, Tensor]:
        """Candidates [parents, topk + k] where a head has guesses [topk], and their scores, not yet normalised."""
        parents = len(known.token)
        same = guess.unsqueeze(1).eq(known.token.unsqueeze(1))  # [parents, topk, k]
        of_guesses = torch.where(same, known.bonus.unsqueeze(1), 0.0).sum(-1)  # [parents, topk]
        of_others = known.bonus.masked_fill(same.any(1), NOTHING)
        weight = self.head_weight[level].take(known.evidence).unsqueeze(1)
        marginal = torch.cat(
            (marginal.expand(parents, -1), head.take(self.vocabulary.place(known.token))), 1
        )
        mixed = torch.addcmul(torch.cat((of_guesses, of_others), 1), weight, marginal)
        return torch.cat((guess.expand(parents, -1), known.token), 1), mixed

    def _tree(self, depth: int, token: Tensor, score: Tensor, parent: Tensor) -> Draft:
        """The best nodes of all `depth` levels together, most likely first; the root is always the first."""
        order = self.order[: len(token)]
        best, chosen = score.topk(len(order))
        place = torch.zeros_like(parent).scatter_(0, chosen, order)
        above = place.take(parent.index_select(0, chosen))  # [nodes] parents in the new numbering
        line = [order]
        for _ in range(depth - 1):
            line.append(above.index_select(0, line[-1]))
        depths = self.depths.index_select(0, chosen)
        up = (depths.unsqueeze(1) - self.generation[:depth]).clamp(
            min=0
        )  # from each node up to the entries of its line
        return Draft(
            Tree(depths, above, torch.stack(line, 1).gather(1, up)),
            token.index_select(0, chosen),
            best,
        )
