"""One more source of candidates: what followed the longest suffix of the text before."""

import torch
from torch import Tensor

from decoders.kept_tokens import KeptTokens
from decoders.suffix.automaton import SuffixAutomaton
from decoders.suffix.decoder import continuation, followed_for, padded_tree
from decoders.tree import Draft

SHORTEST = 2  # Tokens of a suffix. What followed a shorter one is not taken.


class SuffixPath:
    """Puts a path into the drafts of one turn. It works on the host."""

    def __init__(self, prompt: Tensor, most: int) -> None:
        """`most`: nodes of a draft that may give way to the path."""
        self.most = most
        self._kept = KeptTokens()
        self._automaton = SuffixAutomaton(most=1)
        self._automaton.extend(prompt.tolist())

    def observe(self, draft: Draft, node: Tensor) -> None:
        self._kept.observe(draft, node)

    def put_into(self, draft: Draft, depth: int) -> Draft:
        """The draft with the path below its root, in place of its least likely nodes.

        The draft's nodes must come most likely first. The result has as many nodes as the draft,
        and at least `depth` levels.
        """
        self._automaton.extend(self._kept.new(draft.token[:1]))
        length, end = next(self._automaton.earlier(), (0, 0))
        token, parent = draft.token.tolist(), draft.tree.parent.tolist()
        path = []
        if length >= SHORTEST:
            count = min(followed_for(length), len(token) - 1)  # No more of it fits.
            path = continuation(self._automaton.text, end, count)
        child = {(parent[node], token[node]): node for node in range(1, len(token))}
        # Remove as few of the last nodes as the missing part of the path needs. A removed node may
        # lie on the path, and make that part longer. So each number is tried from the start.
        for removed in range(min(self.most, len(token) - 1) + 1):
            kept, node, rest = len(token) - removed, 0, list(path)
            # Walk down the kept nodes as far as they are the path.
            while rest and 0 < child.get((node, rest[0]), 0) < kept:
                node = child[node, rest.pop(0)]
            if len(rest) <= removed:
                break
        new = rest[:removed]  # Where even `most` nodes do not suffice, the path is cut.
        # A chain below the node at which the walk has ended.
        above = [node, *range(kept, kept + removed - 1)] if new else []
        tree = padded_tree((*parent[:kept], *above), depth).to(draft.token.device)
        return Draft(tree, torch.tensor(token[:kept] + new, device=draft.token.device))
