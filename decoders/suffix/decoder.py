"""Drafts what followed the longest suffix of the text where it occurred before.

SAM Decoding (Hu et al. 2024, arXiv 2411.10666) looks the suffix up in an automaton of the text, and
drafts a chain of the tokens after its occurrence. `width=1` does so. Its authors take the first
occurrence; the latest one, taken here, drafts better. A larger `width` makes a narrow tree of the
`width` best occurrences: those with the longest suffix in common, of equal ones the latest. The
longer that suffix, the deeper the draft. Short matches make the tree smaller than `nodes`.

It works on the host, and needs neither heads nor weights.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import torch
from torch import Tensor

from decoders.decoder import Decoder, check_at_least_one
from decoders.kept_tokens import KeptTokens
from decoders.model.model import Rows, Verified
from decoders.suffix.automaton import SuffixAutomaton
from decoders.tree import NO_GUESS, Draft, Tree

# In a tree, a match of m tokens is followed for AT_LEAST + PER_TOKEN * m tokens.
AT_LEAST = 2
PER_TOKEN = 2


@dataclass
class Suffix(Decoder):
    """Drafts what followed the longest suffix of the text before. Works on the host."""

    nodes: int = 16  # At most.
    width: int = 4  # Occurrences that are followed. 1: a chain of `nodes`.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(width=self.width)

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.kept = KeptTokens()
        self.automaton = SuffixAutomaton(self.width)
        self.automaton.extend(prompt.tolist())

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self.kept.observe(draft, node)

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        self.automaton.extend(self.kept.new(root))
        parent, token = self._draft_nodes()
        depth = 0
        if self.model.static_shapes:  # Then all drafts have one shape.
            missing, depth = self.nodes - len(parent), self.max_depth
            parent, token = parent + missing * [0], token + missing * [NO_GUESS]
        device = self.model.device
        tree = padded_tree(tuple(parent), depth).to(device)
        return Draft(tree, torch.tensor(token, device=device))

    def _draft_nodes(self) -> tuple[list[int], list[int]]:
        """Parents and tokens of the tree: the text after each occurrence, common parts once."""
        text = self.automaton.text
        parent, token = [0], [text[-1]]
        child: dict[tuple[int, int], int] = {}  # (node, token) -> the node of that token below it.
        for length, end in islice(self.automaton.earlier(), self.width):
            node = 0
            followed = self.nodes if self.width == 1 else followed_for(length)
            for guess in continuation(text, end, min(followed, self.nodes)):
                if (node, guess) not in child:
                    if len(parent) == self.nodes:
                        break
                    child[node, guess] = len(parent)
                    parent.append(node)
                    token.append(guess)
                node = child[node, guess]
        return parent, token


def followed_for(length: int) -> int:
    """For how many tokens a match of `length` tokens is followed."""
    return AT_LEAST + PER_TOKEN * length


def continuation(text: list[int], end: int, count: int) -> list[int]:
    """The `count` tokens after an occurrence, from position `end` on.

    Where the text ends first, the tokens from `end` on are repeated.
    """
    return [text[end + step % (len(text) - end)] for step in range(count)]


@lru_cache(maxsize=64)
def padded_tree(parent: tuple[int, ...], depth: int) -> Tree:
    """The tree of a parent array, with `ancestors` padded to at least `depth` columns."""
    tree = Tree.from_parent(parent)
    itself = torch.arange(len(tree)).unsqueeze(1)
    padding = itself.expand(-1, max(0, depth - tree.max_depth))
    return Tree(tree.depth, tree.parent, torch.cat((tree.ancestors, padding), 1))
