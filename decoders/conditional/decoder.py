"""Trees by conditional probabilities: each guess is judged by the guesses before it.

MEDUSA's heads do not see each other's guesses. The product of their marginals therefore fills a
tree with combinations that no text contains. Here p(x | path) mixes, at every depth, the head's
marginal with what the base model itself predicted after the path's last two tokens earlier in this
conversation (`successors.py`). The weights are fitted on held-out text (`calibration.py`).
Successors that no head guessed are candidates too. Beyond the heads' depth they stand alone.

The tree holds exactly the candidate paths of the highest score. A conditional probability never
exceeds 1, so no path scores higher than its own prefix. Each level therefore extends the best paths
of the level before, and the tree takes the best of all levels together.
"""

from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from decoders import draft_vocabulary
from decoders.best_nodes import NO_SCORE, BestNodes, best_children
from decoders.conditional import calibration
from decoders.conditional.calibration import Calibration
from decoders.conditional.successors import CHUNK, Known, Successors
from decoders.conditional.suffix_path import SuffixPath
from decoders.decoder import Decoder, check_at_least_one
from decoders.draft_vocabulary import (
    OUTSIDE,
    DraftVocabulary,
    check_vocab,
    parse_vocabulary,
)
from decoders.model.model import Model, Rows, Verified
from decoders.spec import AUTO
from decoders.tree import NO_GUESS, Draft


@dataclass
class Conditional(Decoder):
    """Trees of the most likely paths. Each guess is judged by the tokens before it."""

    reads_prompt: ClassVar[bool] = True
    any_depth: ClassVar[bool] = True
    fitted: ClassVar[dict] = {
        calibration.FILE: Calibration.parse,
        draft_vocabulary.FILE: parse_vocabulary,
    }

    nodes: int | str = 64  # Or "auto".
    topk: int = 32  # Guesses of each head.
    depth: int | None = None  # None: two levels deeper than there are heads.
    successors: int = 4  # Successors remembered for each token, and for each pair of tokens.
    context: int = 2  # Tokens by which successors are looked up: 1 or 2.
    heads: bool = True  # Whether the heads are asked at all.
    # Nodes that may go to what followed the longest suffix of the text where it occurred before.
    suffix: int = 0
    # What heads guess from: "all" or "frequent". None: all, or with nodes=auto the frequent tokens
    # where they are known.
    vocab: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(topk=self.topk, depth=self.depth, successors=self.successors)
        if self.context not in (1, 2):
            raise ValueError(f"context is {self.context}; expected 1 or 2")
        if self.suffix < 0 or (self.suffix > 0 and self.auto):
            raise ValueError(
                f"suffix is {self.suffix}; expected 0 or more, and 0 with nodes={AUTO}"
            )
        check_vocab(self.vocab)
        if self.vocab is not None and not self.heads:
            raise ValueError("vocab is what heads guess from; with heads=false leave it out")

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.head_levels = model.num_heads if self.heads else 0  # Levels with heads' guesses.
        levels = model.num_heads + 2 if self.depth is None else self.depth
        self.levels = min(levels, max(1, self.max_nodes - 1))  # A deeper node has no room.
        frequent = self.files.get(draft_vocabulary.FILE)
        self.vocabulary = DraftVocabulary(
            model, model.heads, frequent, self.vocab, auto=self.auto and self.heads
        )
        self.vocabulary.check_topk(self.topk)
        if self.successors > model.vocab:
            raise ValueError(
                f"successors is {self.successors}, but the vocabulary has {model.vocab} tokens"
            )
        fitted: Calibration = self.files.get(calibration.FILE) or Calibration()
        self.table = Successors(
            model.vocab, self.successors, fitted.successor_weight, fitted.floor, model.device,
            pairs=self.context == 2,
        )  # fmt: skip

        def by_level(values: tuple) -> list:
            levels = range(min(self.levels, self.head_levels))
            return [values[min(level, len(values) - 1)] for level in levels]

        # [levels, evidence]
        self.head_weight = torch.tensor(by_level(fitted.head_weight), device=model.device)
        # [1] the last committed token; the root follows it.
        self.last = torch.zeros(1, dtype=torch.long, device=model.device)
        # All drafts have one shape where shapes are static.
        self.static_depth = self.max_depth if model.static_shapes else 0
        self._lay_out(by_level(fitted.coverage) + [fitted.beyond] * self.levels, model.device)

    def _lay_out(self, coverage: list[float], device: torch.device) -> None:
        """Fix the width of each level, and the tensors that are the same in every step.

        coverage: [levels or more], log probability that the next token is among the candidates.
        """
        widths, starts = [1], [0]  # The root's level is first.
        for level in range(self.levels):
            candidates = self.successors + (self.topk if level < self.head_levels else 0)
            starts.append(starts[-1] + widths[-1])
            widths.append(min(self.max_nodes - 1, widths[-1] * candidates))
        covered = list(accumulate(coverage, initial=0.0))[: self.levels + 1]
        self.widths = widths
        # One entry for each candidate of all levels together:
        spread = torch.tensor(widths)
        self.parents_start = torch.tensor([0, *starts[:-1]]).repeat_interleave(spread).to(device)
        self.covered = torch.tensor(covered).repeat_interleave(spread).to(device)
        self.best = BestNodes(self.max_nodes, widths, device)

    @property
    def captures(self) -> bool:
        return self.suffix == 0  # The suffix is looked up on the host.

    @property
    def max_depth(self) -> int:
        return max(self.levels, self.max_nodes - 1) if self.suffix else self.levels

    def start(self, prompt: Tensor, rows: Rows) -> None:
        if self.suffix:
            self.suffix_path = SuffixPath(prompt, self.suffix)
        self.vocabulary.start(prompt)
        self.table.forget()
        prompt = prompt.to(self.model.device)
        self.table.learn_text(prompt, rows.logits)
        self.last.copy_(prompt[-1:])
        # The latest (token [1], logits [1, vocab]) that the table has not learned from yet.
        self.unlearned: list[tuple[Tensor, Tensor]] = []

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        if self.suffix:
            self.suffix_path.observe(draft, node)
        if len(draft.tree) == 1 and not self.model.static_shapes:
            # Nothing was drafted. Only drafting reads the table, so learning can wait.
            self.unlearned.append((draft.token, verified.logits))
            if len(self.unlearned) == CHUNK:
                self._catch_up()
            return
        before = draft.token.take(draft.tree.parent)
        before[:1] = self.last
        self.table.learn(before, draft.token, verified.logits)
        torch.index_select(draft.token, 0, node, out=self.last)

    def _catch_up(self) -> None:
        if self.unlearned:
            latest_first = zip(*reversed(self.unlearned), strict=True)
            token, logits = (torch.cat(each) for each in latest_first)
            self.table.learn(torch.cat((token[1:], self.last)), token, logits)
            self.last.copy_(token[:1])
            self.unlearned.clear()

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        self._catch_up()
        depth = self.draft_depth or self.levels
        if self.head_levels:
            # head_log_prob: [heads, tokens]. guess, guess_log_prob: [heads, topk].
            logits = self.vocabulary.logits(hidden_state, min(depth, self.head_levels))
            head_log_prob = logits.log_softmax(-1).nan_to_num(nan=NO_SCORE, neginf=NO_SCORE)
            guess_log_prob, columns = head_log_prob.topk(self.topk)
            guess = self.vocabulary.token(columns)
            if self.vocabulary.is_restricted:  # A known successor may be a token that they lack.
                head_log_prob.masked_fill_(head_log_prob <= NO_SCORE, OUTSIDE)
            head_log_prob = self.vocabulary.with_others(head_log_prob)
        before, token, score = self.last, root, torch.zeros(1, device=root.device)
        tokens, scores, parents = [token], [score], [torch.zeros_like(token)]
        for level, width in enumerate(self.widths[1 : 1 + depth]):
            known = self.table.after(before, token)
            if level < self.head_levels:
                candidate, mixed = self._mixed(
                    level, head_log_prob[level], guess[level], guess_log_prob[level], known
                )
                conditional = mixed.log_softmax(-1)
            else:
                candidate = known.token
                # Where all candidates are missing, log_softmax alone would make them likely.
                conditional = known.bonus.log_softmax(-1).minimum(known.bonus)
            score, parent, best = best_children(score, conditional, width)
            before, token = token.index_select(0, parent), candidate.take(best)
            tokens.append(token)
            scores.append(score)
            parents.append(parent)
        token, score = torch.cat(tokens), torch.cat(scores)
        # An unused candidate has no token, and neither has any node below it.
        token = token.masked_fill(score < NO_SCORE / 2, NO_GUESS)
        covered, parents_start = self.covered[: len(token)], self.parents_start[: len(token)]
        draft = self.best.tree(token, score + covered, torch.cat(parents) + parents_start)
        if self.suffix:
            draft = self.suffix_path.put_into(draft, self.static_depth)
        return draft

    def _mixed(
        self, level: int, head_log_prob: Tensor, guess: Tensor, guess_log_prob: Tensor, known: Known
    ) -> tuple[Tensor, Tensor]:
        """Candidates [parents, topk + k] of a level with a head, and their scores.

        head_log_prob: [tokens]. guess, guess_log_prob: [topk]. Scores are not yet normalised.
        """
        parents = len(known.token)
        is_same = guess.unsqueeze(1).eq(known.token.unsqueeze(1))  # [parents, topk, k]
        bonus_of_guess = torch.where(is_same, known.bonus.unsqueeze(1), 0.0).sum(-1)
        bonus_of_other = known.bonus.masked_fill(is_same.any(1), NO_SCORE)
        weight = self.head_weight[level].take(known.evidence).unsqueeze(1)
        other_log_prob = head_log_prob.take(self.vocabulary.column(known.token))
        marginal = torch.cat((guess_log_prob.expand(parents, -1), other_log_prob), 1)
        bonus = torch.cat((bonus_of_guess, bonus_of_other), 1)
        mixed = torch.addcmul(bonus, weight, marginal)
        return torch.cat((guess.expand(parents, -1), known.token), 1), mixed
