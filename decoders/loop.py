"""The decoding loop that every tree decoder shares: propose -> verify -> accept -> commit.

    steps = decoder.decode(prompt, rule, stop)           # the prefill happens here
    for step in steps: ...                               # one verify forward each

The clock is the caller's: nothing here measures time or waits for the device, but for the one small transfer a step that
brings the committed tokens to the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decoders.accept import Rule, deepest
from decoders.model import Model
from decoders.tree import Draft

if TYPE_CHECKING:
    from decoders.base import Decoder


class NotANumber(ArithmeticError):
    """The model's logits are NaN or infinite, so that no token follows."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the model's logits at position {position} are NaN or infinite; it may need another dtype (float32, or bfloat16 "
            "for float16), or its checkpoint is damaged"
        )


@dataclass(frozen=True)
class Stop:
    """When a turn ends."""

    eos: frozenset[int]  # token ids that end it; the one that does is part of the answer
    max_tokens: int  # committed tokens at most
    text: Callable[[list[int]], bool] | None = None  # whether the text of these committed tokens holds a stop string

    def cut(self, before: list[int], new: list[int]) -> tuple[list[int], str | None]:
        """The part of a step's `new` tokens that counts, and why the turn ends with it (eos, stop, length) or None."""
        for at, token in enumerate(new, start=1):
            if token in self.eos:
                return new[:at], "eos"
            if self.text is not None and self.text(before + new[:at]):
                return new[:at], "stop"
            if len(before) + at == self.max_tokens:
                return new[:at], "length"
        return new, None


@dataclass(frozen=True, eq=False)
class Step:
    """What one verify forward committed."""

    tokens: list[int]  # root first, then the accepted drafted tokens, cut where the turn ends
    nodes: int  # nodes of the tree that was verified, root included
    finish: str | None  # why the turn ends here, or None
    draft: Draft | None = None  # the tree itself, still on the device; None for decoders that have none
    path: Tensor | None = None  # [max_depth] its nodes that were kept, the root left out, padded with the last


@torch.inference_mode()
def decode(model: Model, decoder: "Decoder", prompt: Tensor, rule: Rule, stop: Stop) -> Iterator[Step]:
    """Prefill `prompt` [prompt] and return the iterator of steps; it ends with the step whose `finish` is set."""
    rows = model.prefill(prompt, stop.max_tokens + decoder.max_nodes + decoder.max_depth, all_rows=decoder.reads_prompt)
    decoder.start(prompt, rows)
    return _steps(model, decoder, rule, stop, rule.first(rows.logits[-1:], model.length), rows.hidden[-1:])


@torch.inference_mode()
def _steps(model: Model, decoder: "Decoder", rule: Rule, stop: Stop, choice: Tensor, hidden: Tensor) -> Iterator[Step]:
    budget = decoder.budget
    budget.start()
    committed: list[int] = []
    finish = None
    # 1. Draft and propose: the candidates that could follow the root.
    draft = budget.propose(decoder.propose, choice.clamp(min=0), hidden)  # [nodes]
    token, *forecast = torch.cat((choice, budget.forecast(draft))).tolist()
    while finish is None:
        if token < 0:
            raise NotANumber(model.length - 1)
        draft = draft.first(budget.choose(forecast, len(draft.tree), model.length))
        # 2. Verify all of them in one forward pass.
        verified = model.verify(draft)  # hidden [nodes, hidden], logits [nodes, vocab]
        # 3. Accept the deepest path that the base model agrees with.
        verdict = rule.judge(draft, verified.logits, model.length)
        best = deepest(draft.tree, verdict)  # [1]
        path = draft.tree.lines.index_select(0, best).squeeze(0)  # [max_depth]
        depth = draft.tree.depth.index_select(0, best)  # [1]
        choice = verdict.next_token.index_select(0, best)  # [1]
        hidden = verified.hidden.index_select(0, best)  # [1, hidden]
        decoder.observe(draft, verified)
        # 4. Commit it, and draft the next. This transfer is the step's only wait for the device.
        model.keep(path)
        upcoming = budget.propose(decoder.propose, choice.clamp(min=0), hidden)
        news = torch.cat((choice, depth, draft.token.index_select(0, path), budget.forecast(upcoming))).tolist()
        kept = int(news[1])
        model.advance(1 + kept)
        budget.learn(kept)
        tokens, finish = stop.cut(committed, [int(each) for each in (token, *news[2 : 2 + kept])])
        committed += tokens
        yield Step(tokens, len(draft.tree), finish, draft, path)
        token, forecast, draft = news[0], news[2 + len(path) :], upcoming
