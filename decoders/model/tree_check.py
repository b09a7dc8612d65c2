"""Tests whether a model reads a tree as it reads the tree's paths as plain text.

    check_near       a small tree after a short prompt
    steady_context   how long a text may be before its length changes how earlier rows are computed
    check_far        a small tree after more positions than a sliding window holds

A verified tree is right only where the row of a node depends on the text before the tree, the node
and its ancestors alone. Configurations do not say so reliably. So the model itself is run.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from decoders.model.attention import AttentionMasks
from decoders.model.cache import KVCache
from decoders.tree import Draft, Tree

PARENT = (0, 0, 0, 1, 1)
PROMPT = 6  # Tokens.
ROWS = 16  # Rows at the beginning of a text that a far position must not change.
FAR = 1024  # Positions before the far tree. Behind a longer window there are more.
FARTHEST = 1 << 15  # Longer windows are not tried: their cache may not fit into memory.
BEYOND = 8  # Positions by which the far tree lies beyond a window.


class Readable(Protocol):
    """What is used of a `decoders.model.model.Model`."""

    lm: PreTrainedModel
    vocab: int
    context: int
    dtype: torch.dtype
    device: torch.device
    masks: AttentionMasks
    cache: KVCache
    cache_keyword: str
    prefill: Callable
    verify: Callable
    advance: Callable[[int], None]


def check_near(model: Readable) -> None:
    """Compare a tree after a short prompt with its paths as plain texts.

    ValueError where they differ, or where the logits are NaN.
    """
    prompt, draft = _prompt_and_draft(model)
    model.prefill(prompt, room=len(draft.tree))
    in_tree = model.verify(draft).logits.float()
    for path in _paths(draft.tree):
        text = torch.cat((prompt, draft.token[path])).unsqueeze(0)
        plain = model.lm(input_ids=text).logits[0, len(prompt) :].float()
        if plain.isnan().any():
            raise ValueError(
                "its logits are NaN; the checkpoint is damaged, or needs another dtype "
                "(such as float32)"
            )
        _compare(model, in_tree[path], plain, "")


def check_far(model: Readable) -> None:
    """Compare a tree far from a prompt with its paths, read token by token.

    The cache holds made-up keys and values in between, so that nothing long is computed. ValueError
    where they differ.
    """
    prompt, draft = _prompt_and_draft(model)
    window = model.masks.window or 0
    beyond_window = min(window + BEYOND, FARTHEST)
    length = min(model.context - draft.tree.max_depth - 1, max(FAR, beyond_window))
    if length <= len(prompt):
        return
    model.prefill(prompt, room=length - len(prompt) + len(draft.tree))
    model.cache.make_up(length)
    in_tree = model.verify(draft).logits.float()
    for path in _paths(draft.tree):
        rows = []
        model.cache.length = length
        for token in draft.token[path]:
            position = torch.tensor([[model.cache.length]], device=model.device)
            output = model.lm(
                input_ids=token.view(1, 1),
                position_ids=position,
                use_cache=True,
                **{model.cache_keyword: model.cache},
            )
            rows.append(output.logits[0, -1].float())
            model.advance(1)
        _compare(model, in_tree[path], torch.stack(rows), f" at position {length}")


def steady_context(model: Readable) -> int:
    """The longest text, in positions, in which a far position leaves all earlier rows unchanged.

    Some rotary embeddings (LongRoPE, dynamic NTK) compute all positions of a forward in another way
    once its farthest position exceeds a limit. A tree reaches farther than the path that is kept of
    it. So beyond that limit the tree's rows would differ from the path's.
    """
    rows = min(ROWS, model.context - 3)
    if rows < 2:
        return model.context
    near = _rows_before(model, rows, rows + 1)
    # How much rows vary without a far position. In a mixture of experts, rows that go to the same
    # expert are computed together, so another row changes the rounding of these.
    noise = _distance(_rows_before(model, rows, rows + 2), near)
    limit = max(10 * noise, 1e-5 if model.dtype == torch.float32 else 0.02)

    def is_steady(context: int) -> bool:
        found = _rows_before(model, rows, context - 1)
        _rows_before(model, rows, rows + 1)  # Dynamic NTK stays switched until a short text comes.
        return _distance(found, near) <= limit

    low, high = rows + 3, model.context
    if is_steady(high):
        return high
    # Bisection: a text of `low` positions is steady, one of `high` is not.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_steady(middle) else (low, middle)
    return low


def _rows_before(model: Readable, rows: int, last: int) -> Tensor:
    """The logits [rows, vocab] of a text's first rows. One more token is at position `last`."""
    positions = torch.tensor([[*range(rows), last]], device=model.device)
    tokens = _tokens(model, rows + 1).unsqueeze(0)
    output = model.lm(input_ids=tokens, position_ids=positions, use_cache=False)
    return output.logits[0, :rows].float()


def _tokens(model: Readable, count: int) -> Tensor:
    """Made-up tokens [count]."""
    return (torch.arange(count, device=model.device) * 7919 + 13) % model.vocab


def _prompt_and_draft(model: Readable) -> tuple[Tensor, Draft]:
    tree = Tree.from_parent(list(PARENT)).to(model.device)
    tokens = _tokens(model, PROMPT + len(tree))
    return tokens[:PROMPT], Draft(tree, tokens[PROMPT:])


def _paths(tree: Tree) -> list[Tensor]:
    """The nodes of every path of the small tree, from the root to a leaf."""
    return [
        torch.cat((tree.depth.new_zeros(1), tree.ancestors[leaf, : int(tree.depth[leaf])]))
        for leaf in sorted(set(range(len(tree))) - set(PARENT))
    ]


def _distance(found: Tensor, expected: Tensor) -> float:
    """Relative distance of two tensors. NaN where one of them holds NaN."""
    return ((found - expected).norm() / expected.norm().clamp(min=1e-6)).item()


def _compare(model: Readable, in_tree: Tensor, plain: Tensor, where: str) -> None:
    """ValueError where the logits of a path in a tree differ from those as plain text.

    where: added to the message, such as " at position 1024".
    """
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    distance = _distance(in_tree, plain)
    if not distance < tolerance:
        raise ValueError(
            f"a verified tree differs from plain text{where} by {distance:.2g} (relative)"
        )
