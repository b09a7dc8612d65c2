"""Records the candidates of `conditional` along the text that really followed."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from bench.inputs.loader import Loaded
from decoders.accept import Exact
from decoders.best_nodes import NO_SCORE
from decoders.conditional.calibration import FILE, Calibration
from decoders.conditional.decoder import Conditional
from decoders.draft_vocabulary import OUTSIDE
from decoders.model.model import Verified
from decoders.step import Step
from decoders.tree import Draft

NO_TARGET = -1


@dataclass(frozen=True, eq=False)
class Notes:
    """Candidates for tokens whose true value is known. A row is one depth of one step."""

    depth: Tensor  # [rows] from 0 on.
    evidence: Tensor  # [rows] what the known successors rest on.
    marginal: Tensor  # [rows, candidates] the head's log probability.
    successor_prob: Tensor  # [rows, candidates] the base model's earlier probability, or 0.
    is_absent: Tensor  # [rows, candidates] True: this row has no such candidate.
    target: Tensor  # [rows] the column of the true token, or NO_TARGET.
    # [deeper rows] whether a known successor was right, at depths that no head reaches. Rows
    # without a known successor are left out.
    beyond: Tensor

    @classmethod
    def joined(cls, notes: list["Notes"]) -> "Notes":
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(each, name) for each in notes]) for name in names))

    @property
    def has_target(self) -> Tensor:
        """[rows] whether the true token is among the candidates."""
        return self.target > NO_TARGET

    def with_target(self) -> "Notes":
        """The rows whose true token is among the candidates."""
        rows = self.has_target
        return Notes(
            self.depth[rows],
            self.evidence[rows],
            self.marginal[rows],
            self.successor_prob[rows],
            self.is_absent[rows],
            self.target[rows],
            self.beyond,
        )


class Watched(Conditional):
    """Decodes a text whose continuation is known, and notes the candidates at every step."""

    def watch(self, text: list[int], start: int) -> None:
        """text: a prompt and its answer. start: where the answer begins."""
        self.text = text
        self.at = start  # Position of the next root.
        self.notes: list[Notes] = []

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        right = self.text[self.at + 1 :][: self.levels]  # The true token of each level.
        if right:
            line = torch.tensor(self.text[self.at - 1 : self.at + len(right)])
            self.notes.append(self._note(hidden_state, line[:-1], line[1:], torch.tensor(right)))
        return super().propose(root, hidden_state)

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        super().observe(draft, verified, node)
        # The position moves on here: the loop proposes the next draft before it yields the step.
        self.at += 1 + int(draft.tree.depth[node])

    def _note(self, hidden_state: Tensor, before: Tensor, token: Tensor, right: Tensor) -> Notes:
        """The candidates after each `token` [levels], which follows `before` [levels].

        right: [levels] the true next tokens.
        """
        device = hidden_state.device
        known = self.table.after(before.to(device), token.to(device))
        levels = min(len(right), self.model.num_heads)  # With a head.
        logits = self.model.draft_logits(hidden_state).float()[:levels]
        head_log_prob = logits.log_softmax(-1).nan_to_num(nan=NO_SCORE, neginf=NO_SCORE)
        guess_log_prob, guess = head_log_prob.topk(self.topk)
        # A known successor may be a token that the heads lack.
        head_log_prob.masked_fill_(head_log_prob <= NO_SCORE, OUTSIDE)
        successor, bonus = known.token[:levels], known.bonus[:levels]
        marginal = torch.cat((guess_log_prob, head_log_prob.gather(1, successor.clamp(min=0))), 1)
        is_same = guess.unsqueeze(2).eq(successor.unsqueeze(1))  # [levels, topk, successors]
        # The table keeps bonuses. Turn them back into probabilities.
        calibration: Calibration = self.files[FILE]
        weight = torch.tensor(calibration.successor_weight).to(device).take(known.evidence)
        prob = self.table.floor * torch.expm1((known.bonus / weight.unsqueeze(1)).clamp(min=0))
        prob = prob[:levels]
        prob_of_guess = torch.where(is_same, prob.unsqueeze(1), 0.0).sum(-1)
        is_absent = torch.cat((guess_log_prob <= NO_SCORE, is_same.any(1) | (bonus == NO_SCORE)), 1)
        right = right.to(device).unsqueeze(1)
        is_right = torch.cat((guess, successor), 1).eq(right[:levels]) & ~is_absent
        is_known = known.bonus[levels:] > NO_SCORE
        is_beyond_right = known.token[levels:].eq(right[levels:]) & is_known
        return Notes(
            depth=torch.arange(levels),
            evidence=known.evidence[:levels].cpu(),
            marginal=marginal.cpu(),
            successor_prob=torch.cat((prob_of_guess, prob), 1).cpu(),
            is_absent=is_absent.cpu(),
            target=torch.where(is_right.any(1), is_right.byte().argmax(1), NO_TARGET).cpu(),
            beyond=is_beyond_right.any(1)[known.evidence[levels:] > 0].cpu(),
        )


def steps_of(loaded: Loaded, decoder: Conditional, prompt: list[int], tokens: int) -> list[Step]:
    """The steps of the greedy answer, which has `tokens` tokens at most."""
    stop = loaded.stop(min(tokens, loaded.model.context - len(prompt)))
    return list(decoder.decode(torch.tensor(prompt), Exact(), stop))


@torch.no_grad()
def notes_of(
    loaded: Loaded, calibration: Calibration, prompt: list[int], topk: int, tokens: int
) -> list[Notes]:
    """The notes of each step of the greedy answer, which has at most `tokens` tokens.

    calibration: the one that the decoder uses meanwhile. topk: candidates from each head.
    """
    answerer, watched = Conditional(topk=topk), Watched(topk=topk)
    for decoder in (answerer, watched):
        decoder.take({FILE: calibration})
        decoder.setup(loaded.model)
    answer = [token for step in steps_of(loaded, answerer, prompt, tokens) for token in step.tokens]
    watched.watch(prompt + answer, len(prompt))
    steps_of(loaded, watched, prompt, tokens)
    return watched.notes
