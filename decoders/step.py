"""The result of a decoding step, the end of a turn, and the error for logits that are NaN."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from decoders.tree import Draft

HasStop = Callable[[list[int]], bool]  # Whether the text of some tokens contains a stop string.


@dataclass(frozen=True, eq=False)
class Step:
    """What one verify forward committed.

    With static shapes, `draft` and `path` are valid until the next step is asked for.
    """

    tokens: list[int]  # The root, then the accepted drafted tokens; cut where the turn ends.
    nodes: int  # Nodes of the tree that was verified, root included.
    finish: str | None  # Why the turn ends here: eos, stop or length. None: it goes on.
    draft: Draft | None = None  # The tree itself, on the device. None: the decoder has no trees.
    path: Tensor | None = None  # [max_depth] kept nodes after the root, padded with the last one.


@dataclass(frozen=True)
class Stop:
    """When a turn ends."""

    eos: frozenset[int]  # Token ids that end it. The answer includes the one that ended it.
    max_tokens: int  # Most committed tokens in the turn.
    # Whether committed tokens contain a stop string. None: there are no stop strings.
    text: HasStop | None = None

    def cut(self, before: list[int], new: list[int]) -> tuple[list[int], str | None]:
        """The part of a step's `new` tokens that counts, and why the turn ends with it.

        `before`: the tokens committed so far. The reason is eos, stop or length; None: no end.
        """
        for count, token in enumerate(new, start=1):
            if token in self.eos:
                return new[:count], "eos"
            if self.text is not None and self.text(before + new[:count]):
                return new[:count], "stop"
            if len(before) + count == self.max_tokens:
                return new[:count], "length"
        return new, None


class NotANumber(ArithmeticError):
    """The model's logits are NaN or infinite, so that no token follows."""

    def __init__(self, position: int) -> None:
        super().__init__(
            f"the model's logits at position {position} are NaN or infinite; it may need another "
            "dtype (float32, or bfloat16 for float16), or its checkpoint is damaged"
        )
