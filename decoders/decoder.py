"""What a decoder is: a dataclass of options that proposes a tree each step.

@register("repeat")
@dataclass
class Repeat(Decoder):
    nodes: int = 4                                # a field is an option: --decoder repeat:nodes=8

    def setup(self, model):                       # once per model: check the options against it, build tensors
        self.tree = Tree.from_parent([0, *range(self.nodes - 1)]).to(model.device)
        super().setup(model)

    def propose(self, root, hidden):              # each step: candidates that could follow `root`
        return Draft(self.tree, root.expand(self.nodes))
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders.accept import Rule
from decoders.budget import AUTO, Budget
from decoders.loop import Step, Stop, decode
from decoders.model.model import Model, Rows
from decoders.tree import MOST_NODES, Draft


@dataclass
class Decoder:
    """Base class of the tree decoders. Fields are options; options are checked before any model is loaded."""

    drafts: ClassVar[bool] = True  # whether it proposes anything beyond the root
    reads_prompt: ClassVar[bool] = (
        False  # whether `start` needs the prefill's row of every prompt position
    )
    any_depth: ClassVar[bool] = False  # whether `propose` can stop at `budget.depth`
    captures: ClassVar[bool] = (
        False  # whether `propose` and `observe` are the same operations on the same tensors every step
    )
    budget: ClassVar[Budget] = (
        Budget()
    )  # how many of the proposed nodes a step verifies; an instance may be given its own

    def __post_init__(self) -> None:
        """ValueError where an option is out of range. A decoder with checks of its own makes this one as well."""
        if (nodes := getattr(self, "nodes", None)) is not None:
            check_nodes(nodes)

    def setup(self, model: Model) -> None:
        """Bind to a model. ValueError where the options do not fit it."""
        self.model = model
        self.setup_key = (
            object()
        )  # another one each time: what was captured holds the tensors of its setup

    def decode(self, prompt: Tensor, rule: Rule, stop: Stop) -> Iterator[Step]:
        """Prefill `prompt` [prompt] and return the iterator of steps, the last of which has a `finish`."""
        return decode(self.model, self, prompt, rule, stop)

    @property
    def auto(self) -> bool:
        """Whether it needs a budget of its own, an AutoBudget, before `setup`."""
        return getattr(self, "nodes", None) == AUTO

    @property
    def max_nodes(self) -> int:
        """The largest tree it proposes, root included."""
        return self.budget.max_nodes if self.auto else self.nodes

    @property
    def max_depth(self) -> int:
        """The deepest tree it proposes; the root has depth 0."""
        return self.max_nodes - 1

    @property
    def slots_beyond(self) -> int:
        """Slots of the cache behind a text's last position that a step may write to."""
        return self.max_nodes + self.max_depth

    @property
    def draft_depths(self) -> tuple[int, ...]:
        """The depths that it can be asked to draft to, by `budget.depth`; the deepest last."""
        chooses = (
            self.auto and self.any_depth and not self.model.static_shapes
        )  # of which every depth would be one more
        least = min(2, self.max_depth) if chooses else self.max_depth
        return tuple(range(least, self.max_depth + 1))

    def start(self, prompt: Tensor, rows: Rows) -> None:
        """A new turn begins: forget the last one. `rows` are the prefill's, all of them if `reads_prompt`."""

    def propose(self, root: Tensor, hidden: Tensor) -> Draft:
        """The tree to verify next, from the root token [1] and the hidden row [1, hidden] that predicted it."""
        raise NotImplementedError

    def observe(self, draft: Draft, verified: Rows, best: Tensor) -> None:
        """The base model's rows at every node of a draft, kept down to node `best` [1], for decoders that learn from them."""


def check_nodes(nodes: int | str) -> None:
    """ValueError where `nodes` is neither "auto" nor a number of nodes that can be verified at once."""
    if nodes == AUTO:
        return
    if isinstance(nodes, str) or nodes < 1:
        raise ValueError(
            f"nodes is {nodes!r}; expected {AUTO} or a number from 1 on (the root counts)"
        )
    if nodes > MOST_NODES:
        raise ValueError(f"nodes is {nodes}; at most {MOST_NODES} can be verified at once")


def check_depth(depth: int, heads: int, what: str) -> None:
    """ValueError where a tree of `depth` levels needs more heads than there are."""
    if heads == 0:
        raise ValueError(
            "this model has no Medusa heads; use a decoder that needs none, such as greedy"
        )
    if depth > heads:
        raise ValueError(
            f"{what} is {depth} deep, but the model has {heads} heads; a tree is at most as deep"
        )
