"""Validates a decoder's drafts during warm-up, so that no timed step pays for it."""

from itertools import pairwise

import torch
from torch import Tensor

from decoders.decoder import Decoder
from decoders.drafter import Wrapper
from decoders.tree import NO_GUESS, Draft, Tree

ROUNDING = 1e-3  # A log probability may exceed 0 by this much.


class Checked(Wrapper):
    """Raises ValueError where its decoder proposes an invalid draft."""

    inner: Decoder
    captures = False  # A graph would replay a proposal without this check.

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        draft = self.inner.propose(root, hidden_state)
        check_draft(draft, root, self.inner)
        return draft


def check_draft(draft: Draft, root: Tensor, decoder: Decoder) -> None:
    """ValueError says what is wrong with a draft that `decoder` proposes for `root` [1]."""
    if not isinstance(draft, Draft) or not isinstance(draft.tree, Tree):
        raise ValueError(
            f"propose returned a {type(draft).__name__}; expected a Draft of a Tree and its tokens"
        )
    if not isinstance(draft.token, Tensor):
        raise ValueError(
            f"a draft's token is a {type(draft.token).__name__}; expected an int64 tensor [nodes]"
        )
    nodes = draft.token.numel()
    if nodes != len(draft.tree):
        raise ValueError(f"a draft has {nodes} tokens for a tree of {len(draft.tree)} nodes")
    _check_tensors(draft, nodes)
    if not 1 <= nodes <= decoder.max_nodes:
        raise ValueError(
            f"a draft has {nodes} nodes; expected 1 to {decoder.max_nodes}, the decoder's max_nodes"
        )
    if draft.tree.max_depth > decoder.max_depth:
        raise ValueError(
            f"a draft's ancestors have {draft.tree.max_depth} levels; the decoder's max_depth is "
            f"{decoder.max_depth}"
        )
    _check_tokens(draft, root, decoder.model.vocab)
    _check_tree(draft.tree)
    parent, token = draft.tree.parent.tolist(), draft.token.tolist()
    children = [child for child in zip(parent[1:], token[1:], strict=True) if child[1] != NO_GUESS]
    if len(set(children)) < len(children):
        raise ValueError("two nodes of a draft have one parent and one token")
    _check_log_prob(draft, decoder)


def _check_tensors(draft: Draft, nodes: int) -> None:
    tree = draft.tree
    expected = (
        ("token", draft.token, (nodes,)),
        ("parent", tree.parent, (nodes,)),
        ("depth", tree.depth, (nodes,)),
        ("ancestors", tree.ancestors, (nodes, tree.ancestors.shape[-1])),
    )
    for name, tensor, shape in expected:
        if tensor.dtype != torch.long or tuple(tensor.shape) != shape:
            raise ValueError(
                f"a draft's {name} is {tensor.dtype} {list(tensor.shape)}; expected torch.int64 "
                f"{list(shape)}"
            )


def _check_tokens(draft: Draft, root: Tensor, vocab: int) -> None:
    tokens = draft.token.tolist()
    if tokens[0] != root.item():
        raise ValueError(
            f"a draft begins with token {tokens[0]}; expected the root it was asked for, "
            f"{root.item()}"
        )
    for node, token in enumerate(tokens):
        if not 0 <= token < vocab and (token != NO_GUESS or node == 0):
            raise ValueError(
                f"node {node} of a draft has token {token}; the vocabulary has {vocab}"
            )


def _check_tree(tree: Tree) -> None:
    parent = tree.parent.tolist()
    expected = Tree.from_parent(parent)  # A ValueError where it is no tree.
    if tree.depth.tolist() != expected.depth.tolist():
        raise ValueError(
            f"a draft's depths {tree.depth.tolist()} are not those of its parents {parent}"
        )
    missing_levels = max(0, tree.max_depth - expected.max_depth)
    padding = torch.arange(len(tree)).unsqueeze(1).expand(-1, missing_levels)
    if tree.ancestors.tolist() != torch.cat((expected.ancestors, padding), 1).tolist():
        raise ValueError(
            "a draft's ancestors are not those of its parents; Tree.from_parent makes them"
        )


def _check_log_prob(draft: Draft, decoder: Decoder) -> None:
    if draft.log_prob is None:
        if decoder.auto and len(draft.tree) > 1:
            raise ValueError(
                "nodes=auto weighs nodes by the log_prob of their paths, and the draft has none"
            )
        return
    shape = tuple(draft.log_prob.shape)
    if shape != (len(draft.tree),) or not draft.log_prob.is_floating_point():
        raise ValueError(
            f"a draft's log_prob is {draft.log_prob.dtype} {list(shape)}; expected a float of each "
            f"of its {len(draft.tree)} nodes"
        )
    values = draft.log_prob.tolist()
    if any(value != value for value in values):
        raise ValueError(
            "a draft's log_prob holds NaN: heads hold numbers that are too large, or the decoder "
            "computes it wrongly"
        )
    if any(value > ROUNDING for value in values):
        raise ValueError("a draft's log_prob holds the logarithm of more than 1")
    if decoder.auto and any(after > before for before, after in pairwise(values)):
        raise ValueError("nodes=auto takes the first nodes of a draft, whose log_prob must descend")
