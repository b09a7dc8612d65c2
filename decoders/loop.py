"""The decoding loop that every tree decoder shares: propose -> verify -> accept -> commit.

    steps = decode(model, decoder, prompt, rule, stop)   # the prefill happens here
    for step in steps: ...                               # one verify forward each

The clock is the caller's: nothing here measures time or waits for the device, but for the one small transfer a step that
brings the committed tokens to the host.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from decoders.accept import Rule, deepest
from decoders.base import Decoder
from decoders.model import Model
from decoders.tree import Draft


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
    draft: Draft  # the tree itself, still on the device
    path: Tensor  # [max_depth + 1] its nodes that were kept, padded with the last


@torch.inference_mode()
def decode(model: Model, decoder: Decoder, prompt: Tensor, rule: Rule, stop: Stop) -> Iterator[Step]:
    """Prefill `prompt` [prompt] and return the iterator of steps; it ends with the step whose `finish` is set."""
    room = stop.max_tokens + decoder.max_nodes + decoder.max_depth
    rows = model.prefill(prompt, room, all_rows=decoder.reads_prompt)
    decoder.start(prompt, rows)
    return _steps(model, decoder, rule, stop, rule.first(rows.logits[-1:], model.length), rows.hidden[-1:])


@torch.inference_mode()
def _steps(model: Model, decoder: Decoder, rule: Rule, stop: Stop, root: Tensor, hidden: Tensor) -> Iterator[Step]:
    committed: list[int] = []
    finish = None
    while finish is None:
        # 1, 2. Draft and propose: the candidates that could follow the root.
        draft = decoder.propose(root, hidden)  # [nodes]
        # 3. Verify all of them in one forward pass.
        verified = model.verify(draft)  # hidden [nodes, hidden], logits [nodes, vocab]
        # 4. Accept the deepest path that the base model agrees with.
        verdict = rule.judge(draft, verified.logits, model.length)
        best = deepest(draft.tree, verdict)  # [1]
        path, depth = draft.tree.path_to(best)  # [max_depth + 1], [1]
        root = verdict.next_token.index_select(0, best)
        hidden = verified.hidden.index_select(0, best)
        decoder.observe(draft, verified)
        # 5. Commit it. This transfer is the step's only wait for the device.
        *on_path, last = torch.cat((draft.token.index_select(0, path), depth)).tolist()
        model.keep(path, last + 1)
        tokens, finish = stop.cut(committed, on_path[: last + 1])
        committed += tokens
        yield Step(tokens, len(draft.tree), finish, draft, path)
