"""The decoding loop that every tree decoder shares: propose -> verify -> accept -> commit.

    steps = decoder.decode(prompt, rule, stop)           # the prefill happens here
    for step in steps: ...                               # one verify forward each

The clock is the caller's: nothing here measures time or waits for the device, but for the one small transfer a step that
brings the committed tokens to the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decoders.accept import Rule, deepest
from decoders.model.model import Model, Rows, buckets
from decoders.tree import Draft

if TYPE_CHECKING:
    from decoders.decoder import Decoder


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
    text: Callable[[list[int]], bool] | None = (
        None  # whether the text of these committed tokens holds a stop string
    )

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
    draft: Draft | None = (
        None  # the tree itself, still on the device; None for decoders that have none
    )
    path: Tensor | None = (
        None  # [max_depth] its nodes that were kept, the root left out, padded with the last
    )


@torch.inference_mode()
def decode(
    model: Model, decoder: "Decoder", prompt: Tensor, rule: Rule, stop: Stop
) -> Iterator[Step]:
    """Prefill `prompt` [prompt] and return the iterator of steps; it ends with the step whose `finish` is set."""
    rows = model.prefill(
        prompt, stop.max_tokens + decoder.slots_beyond, all_rows=decoder.reads_prompt
    )
    decoder.start(prompt, rows)
    decoder.budget.start(prompt)
    return _steps(
        model, decoder, rule, stop, rule.first(rows.logits[-1:], model.length), rows.hidden[-1:]
    )


@torch.inference_mode()
def _steps(
    model: Model, decoder: "Decoder", rule: Rule, stop: Stop, choice: Tensor, hidden: Tensor
) -> Iterator[Step]:
    budget = decoder.budget
    committed: list[int] = []
    finish = None
    # 1. Draft and propose: the candidates that could follow the root.
    draft = _drafted(decoder, budget.drafts(), choice, hidden)  # [nodes]
    token, *forecast = torch.cat((choice, budget.forecast(draft))).tolist()
    while finish is None:
        if token < 0:
            raise NotANumber(model.length - 1)
        draft = model.place(draft.first(budget.choose(forecast, len(draft.tree), model.length)))
        # 2. to 4. Verify all of them, accept a path and commit it; and 1. again, for the next step.
        news, path, upcoming = _verify_and_settle(model, decoder, rule, draft, budget.drafts())
        next_token, kept, *after = news.tolist()  # the step's only wait for the device
        kept = int(kept)
        model.advance(1 + kept)
        budget.learn(kept)
        tokens, finish = stop.cut(committed, [int(each) for each in (token, *after[:kept])])
        committed += tokens
        yield Step(tokens, len(draft.tree), finish, draft, path)
        token, forecast, draft = next_token, after[len(path) :], upcoming


def _verify_and_settle(
    model: Model, decoder: "Decoder", rule: Rule, draft: Draft, drafts: bool
) -> tuple[Tensor, Tensor, Draft]:
    """All that the device does of a step, over a draft that is placed; see `_settle`."""
    # 2. Verify: one forward pass over all nodes.
    verified = model.verify(draft)  # hidden [nodes, hidden], logits [nodes, vocab]
    settle = partial(_settle, model, decoder, rule, draft, verified, drafts)
    if not (model.static_shapes and decoder.captures and rule.constants is not None):
        return settle()
    budget = decoder.budget
    kind = decoder.setup_key, rule.constants, budget, budget.depth, drafts
    return model.graphs.run(("settle", kind, model.shape_of(draft)), settle)


def _settle(
    model: Model, decoder: "Decoder", rule: Rule, draft: Draft, verified: Rows, drafts: bool
) -> tuple[Tensor, Tensor, Draft]:
    """All of a step that follows its forward, without a word from the device to the host.

    Returns what the host has to know of it (the next root, the depth that was kept, the tokens of its path, the forecast of the
    next draft), the path [max_depth], and the next draft, a lone root unless it `drafts`.
    """
    # 3. Accept: the deepest path that the rule allows.
    verdict = rule.judge(draft, verified.logits, model.length)
    best, depth = deepest(draft.tree, verdict)  # [1], [1]
    path = draft.tree.lines.index_select(0, best).squeeze(0)
    choice = verdict.next_token.index_select(0, best)  # [1]
    # 4. Commit its keys and values, and draft what could follow it.
    decoder.observe(draft, verified, best)
    model.keep(path)
    upcoming = _drafted(decoder, drafts, choice, verified.hidden.index_select(0, best))
    news = torch.cat(
        (choice, depth, draft.token.index_select(0, path), decoder.budget.forecast(upcoming))
    )
    return news, path, upcoming


def _drafted(decoder: "Decoder", drafts: bool, choice: Tensor, hidden: Tensor) -> Draft:
    """The next tree: the decoder's, or the root alone. Where there is no token, any stands in for it until that is said."""
    root = choice.clamp(min=0)
    return decoder.propose(root, hidden) if drafts else Draft.of_root(root)


@torch.inference_mode()
def rehearse(model: Model, decoder: "Decoder", rule: Rule, reach: int) -> None:
    """Take every kind of step that turns of at most `reach` positions can come to, twice, so that all are captured by then.

    Otherwise each would be when it is first met again, while somebody's clock runs. Only for decoders that say `captures`: what
    others would make of steps at made-up places is not known.
    """
    budget = decoder.budget
    prompt = torch.zeros(2, dtype=torch.long)
    rows = model.prefill(prompt, reach + decoder.slots_beyond, all_rows=decoder.reads_prompt)
    decoder.start(prompt, rows)
    budget.start(prompt)
    root = torch.zeros(1, dtype=torch.long, device=model.device)
    proposed = decoder.propose(root, rows.hidden[-1:])
    drafts = [proposed.first(nodes) for nodes in budget.sizes(len(proposed.tree))]
    if budget.pauses:
        drafts.append(Draft.of_root(root))
    for draft in drafts:
        nodes, depth = len(draft.tree), draft.tree.max_depth
        for width in buckets(reach - 1 + nodes):
            length = min(
                width - nodes, model.cache.capacity - 1 - depth
            )  # a kept path, too, lies within the cache
            if length < 1:
                continue
            for drafting in (True, False) if budget.pauses else (True,):
                for _ in range(2):  # as it is, and captured
                    model.cache.length = length
                    _verify_and_settle(model, decoder, rule, model.place(draft), drafting)
                if not model.graphs.captures:  # it cannot be, which has been said
                    model.wipe()
                    return
    model.wipe()
