"""Grows a candidate tree level by level, each guess judged by the guesses before it.

This is EAGLE-2's search (Li et al. 2024, arXiv 2406.16858). A path's probability is the product of
its guesses' probabilities. The `beam` most likely nodes of a level are extended, each by its `topk`
likeliest next tokens. The tree takes the best nodes of all levels together. A path is never more
likely than its prefix, so a chosen node's parent is chosen, too.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from decoders import draft_vocabulary
from decoders.best_nodes import NO_SCORE, BestNodes, best_children
from decoders.decoder import Decoder, check_at_least_one
from decoders.draft_vocabulary import DraftVocabulary, check_vocab, parse_vocabulary
from decoders.model.model import Model, Rows
from decoders.model.projection import Projections
from decoders.tree import Draft


class Beam:
    """Grows trees of at most `nodes` nodes."""

    def __init__(self, nodes: int, topk: int, beam: int, depth: int, model: Model) -> None:
        """nodes: of the largest tree, root included. topk: next tokens of each extended node.

        beam: most nodes of a level that are extended. depth: levels below the root.

        ValueError where the vocabulary has fewer than `topk` tokens.
        """
        if topk > model.vocab:
            raise ValueError(f"topk is {topk}, but the vocabulary has {model.vocab} tokens")
        self.topk = topk
        self.beam = beam
        # Candidates of each level, root first. No more than nodes - 1 of a level can be chosen.
        self.widths = [1]
        for _ in range(min(depth, nodes - 1)):  # A deeper node has no room.
            self.widths.append(min(nodes - 1, min(beam, self.widths[-1]) * topk))
        self.best_nodes = BestNodes(nodes, self.widths, model.device)

    @property
    def depth(self) -> int:
        """Levels below the root of the deepest tree."""
        return len(self.widths) - 1

    @property
    def most_extended(self) -> int:
        """Nodes of the deepest tree that are extended, at most."""
        return sum(min(width, self.beam) for width in self.widths[:-1])

    def grow(
        self,
        root: Tensor,
        logits_of: Callable[[Tensor, Tensor], Tensor],
        depth: int,
        token_of: Callable[[Tensor], Tensor] = lambda column: column,
    ) -> Draft:
        """The best nodes after `root` [1] as a tree of at most `depth` levels, most likely first.

        logits_of: called once a level, with the nodes that are extended: the index [extended] of
        each one's parent among the nodes of the last call, and their tokens [extended]. It returns
        the logits [extended, columns] of what follows them. token_of: the tokens of some columns.
        """
        if self.depth == 0:
            return Draft.of_root(root)
        token, parent = root, torch.zeros_like(root)
        score = torch.zeros(1, device=root.device)
        tokens, scores, parents = [token], [score], [parent]
        level_start = 0  # Index, among all candidates, of the extended level's first one.
        for above, width in zip(self.widths[:depth], self.widths[1:], strict=False):
            extended = slice(min(above, self.beam))  # Each level stands in descending order.
            token, parent, score = token[extended], parent[extended], score[extended]
            logits = logits_of(parent, token).to(root.device)
            log_prob = logits.log_softmax(-1).nan_to_num(nan=NO_SCORE, neginf=NO_SCORE)
            guess_log_prob, guess = log_prob.topk(self.topk)  # [extended, topk]
            score, parent, best = best_children(score, guess_log_prob, width)
            token = token_of(guess.take(best))
            tokens.append(token)
            scores.append(score)
            parents.append(parent + level_start)
            level_start += above
        return self.best_nodes.tree(torch.cat(tokens), torch.cat(scores), torch.cat(parents))


class BeamDecoder(Decoder):
    """A decoder whose own weights guess trees level by level (Hydra, EAGLE).

    A subclass has the options nodes, topk, beam, depth, vocab and path. Its `setup` makes `search`,
    the `Beam` that grows its trees, and `vocabulary`.
    """

    any_depth: ClassVar[bool] = True
    captures: ClassVar[bool] = True
    fitted: ClassVar[dict] = {draft_vocabulary.FILE: parse_vocabulary}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(topk=self.topk, beam=self.beam, depth=self.depth)
        check_vocab(self.vocab)

    def make_vocabulary(self, projections: Projections) -> DraftVocabulary:
        """The draft vocabulary that the options choose for these projections."""
        frequent = self.files.get(draft_vocabulary.FILE)
        vocabulary = DraftVocabulary(self.model, projections, frequent, self.vocab, self.auto)
        vocabulary.check_topk(self.topk)
        return vocabulary

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.vocabulary.start(prompt)

    def grow(self, root: Tensor, logits_of: Callable[[Tensor, Tensor], Tensor]) -> Draft:
        """As `Beam.grow`, to the depth that is wanted. Columns are those of `vocabulary`."""
        depth = self.draft_depth or self.max_depth
        return self.search.grow(root, logits_of, depth, self.vocabulary.token)

    def path_of(self, file: str) -> str | None:
        return self.path if file in self.weights else None

    @property
    def max_depth(self) -> int:
        return self.search.depth
