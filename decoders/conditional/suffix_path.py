"""One more source of candidates: what followed the longest suffix of the text before."""

import torch
from torch import Tensor

from decoders.kept_tokens import KeptTokens
from decoders.suffix.automaton import SuffixAutomaton
from decoders.suffix.decoder import followed, shaped_tree
from decoders.tree import Draft

LEAST = 2  # Tokens of a suffix that is followed.


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

        It has as many nodes as before, and `depth` levels at least.
        """
        self._automaton.extend(self._kept.new(draft.token[:1]))
        length, end = next(self._automaton.earlier(), (0, 0))
        path = followed(self._automaton.text, length, end) if length >= LEAST else []
        token, parent = draft.token.tolist(), draft.tree.parent.tolist()
        child = {(parent[node], token[node]): node for node in range(1, len(token))}
        for given in range(min(self.most, len(token) - 1) + 1):
            kept, node, new = len(token) - given, 0, list(path)
            while new and 0 < child.get((node, new[0]), 0) < kept:
                node = child[node, new.pop(0)]
            if len(new) <= given:
                break
        new = new[:given]
        below = [node, *range(kept, kept + given - 1)] if new else []
        tree = shaped_tree((*parent[:kept], *below), depth).to(draft.token.device)
        return Draft(tree, torch.tensor(token[:kept] + new, device=draft.token.device))
