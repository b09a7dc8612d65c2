"""The kept tokens of a turn, on the host."""

import torch
from torch import Tensor

from decoders.tree import Draft


class KeptTokens:
    """Collects the tokens that the steps of a turn keep. One transfer brings them to the host."""

    def __init__(self) -> None:
        # One tensor [2 + max_depth] a step: the depth of the kept node, and the tokens of its path.
        self._waiting: list[Tensor] = []
        self._is_root_known = False  # Whether the first waiting root was returned already.

    def observe(self, draft: Draft, node: Tensor) -> None:
        """Take note that a step has kept the path to `node` [1] of a draft."""
        depth = draft.tree.depth.index_select(0, node)
        tokens = draft.token.index_select(0, draft.tree.path_to(node))
        self._waiting.append(torch.cat((depth, tokens)))

    def new(self, root: Tensor) -> list[int]:
        """The tokens kept since the last call, and `root` [1], which is kept as well.

        A root is returned before its step, and not again after it.
        """
        rows = torch.cat((*self._waiting, root)).tolist()
        tokens, start = [], 0
        for row in self._waiting:
            depth = rows[start]
            tokens += rows[start + 1 : start + 2 + depth]
            start += len(row)
        tokens = [*tokens[self._is_root_known :], rows[-1]]
        self._waiting, self._is_root_known = [], True
        return tokens
