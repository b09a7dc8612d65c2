"""What a draft must be: looked at before the first answer, as a decoder of anyone's may be wrong, and in no timed step."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from decoders.tree import NO_GUESS, Draft, Tree

if TYPE_CHECKING:
    from decoders.decoder import Decoder

ROUNDING = 1e-3  # by which a log probability may exceed 0


@contextmanager
def checked(decoder: "Decoder") -> Iterator[None]:
    """While this lasts, a draft that is none is a ValueError where it is proposed. No step is captured meanwhile."""
    propose: Callable[[Tensor, Tensor], Draft] = decoder.propose

    def check(root: Tensor, hidden: Tensor) -> Draft:
        draft = propose(root, hidden)
        check_draft(draft, root, decoder)
        return draft

    decoder.propose, decoder.captures = check, False
    try:
        yield
    finally:
        del decoder.propose, decoder.captures


def check_draft(draft: Draft, root: Tensor, decoder: "Decoder") -> None:
    """ValueError says what is wrong with a draft that `decoder` proposes for `root` [1]."""
    if not isinstance(draft, Draft) or not isinstance(draft.tree, Tree):
        raise ValueError(
            f"propose returned a {type(draft).__name__}; expected a Draft of a Tree and its tokens"
        )
    tree, nodes = draft.tree, draft.token.numel()
    for name, tensor, shape in (
        ("token", draft.token, (nodes,)), ("parent", tree.parent, (nodes,)), ("depth", tree.depth, (nodes,)),
        ("lines", tree.lines, (nodes, tree.lines.shape[-1])),
    ):  # fmt: skip
        if tensor.dtype != torch.long or tuple(tensor.shape) != shape:
            raise ValueError(
                f"a draft's {name} is {tensor.dtype} {list(tensor.shape)}; expected torch.int64 {list(shape)}"
            )
    if not 1 <= nodes <= decoder.max_nodes:
        raise ValueError(
            f"a draft has {nodes} nodes; expected 1 to {decoder.max_nodes}, the decoder's max_nodes"
        )
    if tree.max_depth > decoder.max_depth:
        raise ValueError(
            f"a draft's lines have {tree.max_depth} levels; the decoder's max_depth is {decoder.max_depth}"
        )
    token, parent, vocab = draft.token.tolist(), tree.parent.tolist(), decoder.model.vocab
    if token[0] != root.item():
        raise ValueError(
            f"a draft begins with token {token[0]}; expected the root it was asked for, {root.item()}"
        )
    for node, each in enumerate(token):
        if not 0 <= each < vocab and (each != NO_GUESS or node == 0):
            raise ValueError(f"node {node} of a draft has token {each}; the vocabulary has {vocab}")
    expected = Tree.from_parent(parent)  # a ValueError where it is no tree
    if tree.depth.tolist() != expected.depth.tolist():
        raise ValueError(
            f"a draft's depths {tree.depth.tolist()} are not those of its parents {parent}"
        )
    padding = (
        torch.arange(nodes).unsqueeze(1).expand(-1, max(0, tree.max_depth - expected.max_depth))
    )
    if tree.lines.tolist() != torch.cat((expected.lines, padding), 1).tolist():
        raise ValueError(
            "a draft's lines are not those of its parents; Tree.from_parent makes them"
        )
    siblings = [pair for pair in zip(parent[1:], token[1:], strict=True) if pair[1] != NO_GUESS]
    if len(set(siblings)) < len(siblings):
        raise ValueError("two nodes of a draft have one parent and one token")
    _check_log_prob(draft, decoder)


def _check_log_prob(draft: Draft, decoder: "Decoder") -> None:
    if draft.log_prob is None:
        if decoder.auto and len(draft.tree) > 1:
            raise ValueError(
                "nodes=auto weighs nodes by the log_prob of their paths, and the draft has none"
            )
        return
    if tuple(draft.log_prob.shape) != (len(draft.tree),) or not draft.log_prob.is_floating_point():
        raise ValueError(
            f"a draft's log_prob is {draft.log_prob.dtype} {list(draft.log_prob.shape)}; expected a float of each of its "
            f"{len(draft.tree)} nodes"
        )
    values = draft.log_prob.tolist()
    if any(value != value or value > ROUNDING for value in values):
        raise ValueError("a draft's log_prob holds NaN, or the logarithm of more than 1")
    if decoder.auto and any(after > before for before, after in pairwise(values)):
        raise ValueError("nodes=auto takes the first nodes of a draft, whose log_prob must descend")
