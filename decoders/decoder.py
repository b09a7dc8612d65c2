"""What a decoder is: a dataclass of options that proposes a tree in each step.

@dataclass
class Repeat(Decoder):
    nodes: int = 4                             # a field is an option: --decoder repeat:nodes=8

    def setup(self, model):                    # once: check the options, build tensors
        self.tree = Tree.from_parent([0, *range(self.nodes - 1)]).to(model.device)
        super().setup(model)

    def propose(self, root, hidden_state):     # each step: candidates that could follow `root`
        return Draft(self.tree, root.expand(self.nodes))

docs/own_decoder.md explains how to write one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from decoders.accept import Rule
from decoders.drafter import Drafter
from decoders.loop import decode
from decoders.model.model import Model
from decoders.spec import AUTO, MOST_NODES
from decoders.step import Step, Stop


@dataclass
class Decoder(Drafter):
    """Base class of all decoders. Its fields are options, checked before a model is loaded."""

    # Whether it proposes anything beyond the root.
    drafts: ClassVar[bool] = True
    # Whether `propose` can stop at `draft_depth` levels.
    any_depth: ClassVar[bool] = False
    # Optional JSON files beside the model: name -> parser of the content. A parser raises
    # ValueError where the content is wrong.
    fitted: ClassVar[Mapping[str, Callable[[object], object]]] = {}
    # Required files of tensors (.safetensors; .pt or .bin with nothing but tensors): name ->
    # function of the named tensors and the model. Its result goes to `files`. ValueError as above.
    weights: ClassVar[Mapping[str, Callable[[Mapping[str, Tensor], Model], object]]] = {}
    # Names of other language models that it drafts with. `path_of` gives the folder or hub id of
    # each. A `Model` with the base model's tokens, on its device, goes to `files`.
    models: ClassVar[tuple[str, ...]] = ()

    # The parsed contents of these files, and these models, by name. The harness reads them and
    # calls `take`.
    files: ClassVar[Mapping[str, object]] = {}
    # Nodes of the largest tree where `nodes` is "auto". A budget sets it before `setup`.
    auto_nodes: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        """ValueError where an option is out of range. An override must call this method, too."""
        if (nodes := getattr(self, "nodes", None)) is not None:
            check_nodes(nodes)

    def path_of(self, file: str) -> str | None:
        """Where the options place a file of `fitted` or `weights`, or one of `models`.

        file: its name there. Returns a path; for `models`, a folder or hub id. None: the file is
        beside the model.
        """
        return None

    def expect(self, positions: int) -> None:
        """Receive the most positions that a turn of the run may take. Called before the warm-up.

        By default, nothing is done.
        """

    def take(self, files: Mapping[str, object]) -> None:
        """Receive the parsed contents of the files that exist, by name. Called before `setup`.

        Where `path_of` names a file of `fitted`, it is also called when the decoder is made, with
        such files alone: no weights and no models yet.
        """
        self.files = files

    @property
    def identity(self) -> object | None:
        """The contents that the options refer to by a name, as JSON data. None: there are none.

        A tree file is an example: it may change under its name. Two runs count as one
        configuration only where their identities are equal.
        """
        return None

    @property
    def learns_across_questions(self) -> bool:
        """Whether what it learns from one question changes its drafts for later ones."""
        return False

    @property
    def auto(self) -> bool:
        """Whether a budget decides, in every step, how many nodes are verified."""
        return getattr(self, "nodes", None) == AUTO

    @property
    def max_nodes(self) -> int:
        """The option `nodes`. A decoder without that option has a `max_nodes` of its own."""
        if not hasattr(self, "nodes"):
            raise NotImplementedError(
                f"{type(self).__name__} needs an option nodes, or a property max_nodes"
            )
        if not self.auto:
            return self.nodes
        if self.auto_nodes is None:
            raise ValueError("nodes is auto, which needs a budget; without one, set auto_nodes")
        return self.auto_nodes

    @property
    def draft_depths(self) -> tuple[int, ...]:
        """The values that `draft_depth` may be given, ascending."""
        # With static shapes each depth would be one more graph to capture.
        varies = self.auto and self.any_depth and not self.model.static_shapes
        least = min(2, self.max_depth) if varies else self.max_depth
        return tuple(range(least, self.max_depth + 1))

    def decode(
        self,
        prompt: Tensor,
        rule: Rule,
        stop: Stop,
        watched_by: Callable[[Drafter], Drafter] | None = None,
    ) -> Iterator[Step]:
        """Read `prompt` [prompt] and return the iterator of steps. The last one has a `finish`.

        watched_by: wraps this decoder in another drafter, which the loop then calls. A decoder that
        does not use our loop ignores it. None: no wrapper.
        """
        return decode(self.model, watched_by(self) if watched_by else self, prompt, rule, stop)


def declared(files: object) -> Mapping[str, Callable]:
    """A decoder's `fitted` or `weights`.

    Empty where the decoder has an option of that name instead, as in --decoder mine:weights=PATH.
    """
    return files if isinstance(files, Mapping) else {}


def check_nodes(nodes: int | str) -> None:
    """ValueError where `nodes` is neither "auto" nor a number that can be verified at once."""
    if nodes == AUTO:
        return
    if isinstance(nodes, str) or nodes < 1:
        raise ValueError(
            f"nodes is {nodes!r}; expected {AUTO} or a number from 1 on (the root counts)"
        )
    if nodes > MOST_NODES:
        raise ValueError(f"nodes is {nodes}; at most {MOST_NODES} can be verified at once")


def check_at_least_one(**options: int | None) -> None:
    """ValueError names the first option below 1. None: not given."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")


def check_depth(depth: int, heads: int, what: str) -> None:
    """ValueError where a tree of `depth` levels needs more heads than there are.

    what: how the message names the tree.
    """
    if heads == 0:
        raise ValueError(
            "this model has no Medusa heads; use a decoder that needs none, such as greedy, suffix "
            "or conditional"
        )
    if depth > heads:
        raise ValueError(
            f"{what} has depth {depth}, but the model has {heads} heads, one for each level"
        )
