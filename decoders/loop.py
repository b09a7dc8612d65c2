"""The decoding loop that every tree decoder shares: propose, verify, accept, commit.

    steps = decode(model, drafter, prompt, rule, stop)   # the prefill happens here
    for step in steps: ...                               # one verify forward each

The caller measures time. The loop waits for the device once a step, when the committed tokens are
copied to the host. A drafter that reads values waits as well.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from decoders.accept import Rule
from decoders.drafter import Drafter
from decoders.model.model import Model, Verified
from decoders.step import NotANumber, Step, Stop
from decoders.tree import Draft


@torch.inference_mode()
def decode(
    model: Model, drafter: Drafter, prompt: Tensor, rule: Rule, stop: Stop
) -> Iterator[Step]:
    """Read `prompt` [prompt], and return the iterator of steps. The last one has a `finish`.

    Raises NotANumber, from the iterator, where the model's logits name no token.
    """
    room = stop.max_tokens + drafter.slots_beyond
    rows = model.prefill(prompt, room, drafter.reads_prompt, drafter.reads_prompt_logits)
    root = rule.first_root(rows.logits[-1:], model.length)  # The drafter may change the rows.
    drafter.start(prompt, rows)
    return _steps(model, drafter, rule, stop, root, rows.hidden_states[-1:])


@torch.inference_mode()
def _steps(
    model: Model, drafter: Drafter, rule: Rule, stop: Stop, root: Tensor, hidden_state: Tensor
) -> Iterator[Step]:
    """The steps from the first root [1] and the hidden state [1, hidden] that predicted it."""
    committed: list[int] = []
    finish = None
    # 1. Propose: a tree of candidates. Where there is no root, token 0 replaces it until the check.
    draft = drafter.propose(root.clamp(min=0), hidden_state)
    token, *forecast = _joined(root, draft.forecast).tolist()
    while finish is None:
        if token < 0:
            raise NotANumber(model.length - 1)
        draft = drafter.before_step(draft, forecast, model.length)

        # 2. Verify: one forward pass over all nodes of the tree.
        verified = model.verify(draft)

        # The rest of the device's work is one function, which an engine may replay as a graph.
        def settle(verified: Verified) -> tuple[Tensor, Draft, Tensor]:
            # 3. Accept: the deepest path that the rule allows.
            kept = rule.accept(verified.draft, verified.logits, model.length)
            # 4. Commit: keep the path's keys and values; let the drafter learn from all rows.
            drafter.observe(verified.draft, verified, kept.node)
            model.keep(kept.path)
            # 1. Propose again: the candidates that could follow the kept path.
            hidden_of_kept = verified.hidden_states.index_select(0, kept.node)
            upcoming = drafter.propose(kept.next_token.clamp(min=0), hidden_of_kept)
            news = _joined(kept.next_token, kept.depth, kept.tokens, upcoming.forecast)
            return kept.path, upcoming, news

        path, upcoming, news = model.settle(settle, verified, drafter, rule)
        next_token, depth, *rest = news.tolist()  # The step's only wait for the device.
        depth = int(depth)
        model.advance(1 + depth)
        tokens, finish = stop.cut(committed, [int(each) for each in (token, *rest[:depth])])
        drafter.after_step(len(tokens) - 1)
        committed += tokens
        yield Step(tokens, len(verified.draft.tree), finish, verified.draft, path)
        token, forecast, draft = next_token, rest[len(path) :], upcoming


def _joined(*parts: Tensor | None) -> Tensor:
    """All parts that are not None in one tensor, so that one transfer brings them to the host.

    Beside floats it is float32, which holds token ids exactly, as a smaller dtype would not.
    """
    present = [part for part in parts if part is not None]
    return torch.cat([part.float() if part.is_floating_point() else part for part in present])
