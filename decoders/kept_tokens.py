"""The text of a turn on the host, for decoders that draft from what it says."""

import torch
from torch import Tensor

from decoders.tree import Draft


class KeptTokens:
    """Collects the tokens that the steps of a turn keep. One transfer brings them to the host."""

    def __init__(self) -> None:
        self._waiting: list[Tensor] = []  # By step: depth of the kept node, root, path.
        self._is_root_known = False  # Whether the first waiting root was returned already.

    def observe(self, draft: Draft, node: Tensor) -> None:
        """A step has kept the path to `node` [1] of a draft."""
        tree = draft.tree
        path = tree.ancestors.index_select(0, node).squeeze(0)
        depth, tokens = tree.depth.index_select(0, node), draft.token.index_select(0, path)
        self._waiting.append(torch.cat((depth, draft.token[:1], tokens)))

    def new(self, root: Tensor) -> list[int]:
        """The tokens kept since the last call, and `root` [1], which is kept as well.

        The root of a step is returned once, before the step.
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
