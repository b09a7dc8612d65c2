"""What a decoder is told and what it proposes, written down."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from decoders.accept import Rule
from decoders.decoder import Decoder
from decoders.drafter import Drafter, Wrapper
from decoders.model.model import Rows, Verified
from decoders.step import Step, Stop
from decoders.tree import Draft


@dataclass
class Diary:
    """One turn of a decoder."""

    first: Rows | None = None  # What `start` was given.
    proposed: list[Draft] = field(default_factory=list)
    verified: list[Verified] = field(default_factory=list)  # Each after the proposal of its index.
    steps: list[Step] = field(default_factory=list)


class _Watched(Wrapper):
    def __init__(self, inner: Drafter, diary: Diary) -> None:
        super().__init__(inner)
        self.diary = diary

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.diary.first = rows
        super().start(prompt, rows)

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        self.diary.proposed.append(super().propose(root, hidden_state))
        return self.diary.proposed[-1]

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self.diary.verified.append(verified)
        super().observe(draft, verified, node)


def watched_turn(decoder: Decoder, prompt: list[int], rule: Rule, stop: Stop) -> Diary:
    """A turn of a decoder that is set up, with dynamic shapes."""
    diary = Diary()
    diary.steps = list(
        decoder.decode(torch.tensor(prompt), rule, stop, lambda drafter: _Watched(drafter, diary))
    )
    return diary


def paths_of(draft: Draft) -> dict[tuple[int, ...], float | None]:
    """Log probability, or None, of each path of a draft: its tokens after the root."""
    log_prob = [None] * len(draft.tree) if draft.log_prob is None else draft.log_prob.tolist()
    paths = {}
    for node, depth in enumerate(draft.tree.depth.tolist()):
        ancestors = draft.tree.ancestors[node, :depth]
        paths[tuple(draft.token[ancestors].tolist())] = log_prob[node]
    return paths
