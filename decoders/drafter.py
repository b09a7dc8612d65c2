"""The interface that the decoding loop calls: one tree of candidates in each step.

A decoder is a `Drafter` with options (`decoders.decoder`). Wrappers are drafters too: a budget
shortens the drafts of another drafter, and a check validates them.
"""

from collections.abc import Hashable, Sequence
from typing import ClassVar

from torch import Tensor

from decoders.model.model import Model, Rows, Verified
from decoders.tree import Draft


class Drafter:
    """Proposes a tree in each step. Every method but `propose` has a default.

    `propose` and `observe` run on the device and may be captured in a graph. `before_step` and
    `after_step` run on the host, between a step's transfer and the next forward.
    """

    # Whether `start` gets the prefill's rows of all prompt positions. False: of the last one only.
    reads_prompt: ClassVar[bool] = False
    # Whether these rows have logits, too. False: the last one alone has, which takes less time.
    reads_prompt_logits: ClassVar[bool] = True
    # Whether `propose` and `observe` are the same operations on the same tensors in every step, so
    # that a CUDA graph may replay them.
    captures: ClassVar[bool] = False
    # Levels of the next draft. None: max_depth. A budget sets it where the drafter can vary it.
    draft_depth: int | None = None

    def setup(self, model: Model) -> None:
        """Bind to a model, once. ValueError where the options do not fit the model."""
        self.model = model
        # A captured graph holds the tensors of one setup, so every setup has a key of its own.
        self.setup_key = object()

    @property
    def max_nodes(self) -> int:
        """Nodes of the largest tree that is proposed, root included."""
        raise NotImplementedError(f"{type(self).__name__} has no property max_nodes")

    @property
    def max_depth(self) -> int:
        """Depth of the deepest tree that is proposed. The root has depth 0."""
        return self.max_nodes - 1

    @property
    def slots_beyond(self) -> int:
        """Slots of the KV cache after the last committed position that a step may write to."""
        return self.max_nodes + self.max_depth

    def start(self, prompt: Tensor, rows: Rows) -> None:
        """A turn begins with `prompt` [prompt]. Forget the last turn.

        `rows`: the prefill's rows, all of them if `reads_prompt`, else the last one.
        """

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        """The tree to verify next, with `root` as its first token.

        root: [1] token id. hidden_state: [1, hidden], from which the base model predicted the root.
        """
        raise NotImplementedError(f"{type(self).__name__} has no method propose")

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        """Learn from the base model's rows at every node of a draft. By default, nothing.

        node: [1], the last node of the kept path. Called before the next `propose`.
        """

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        """The part of a draft that is to be verified.

        forecast: the draft's own `forecast`, on the host. length: committed positions.
        """
        return draft

    def after_step(self, kept: int) -> None:
        """Take note that the step has kept `kept` drafted tokens. By default, do nothing."""

    def took(self, seconds: float) -> None:
        """Take note that the step that was just yielded took so long. By default, do nothing.

        Called by a host that has a clock, or not at all. What a drafter makes of it must not change
        tokens, only how many are drafted.
        """

    @property
    def kind(self) -> Hashable:
        """Key of the operations that the next `propose` runs, known on the host."""
        return None

    def sizes(self, nodes: int) -> Sequence[int]:
        """The numbers of nodes to which `before_step` may cut a draft of `nodes` nodes."""
        return (nodes,)

    def kinds(self) -> Sequence[Hashable]:
        """All values of `kind` that occur in a turn. The first one is of a step that drafts."""
        return (self.kind,)

    def become(self, kind: Hashable) -> None:
        """Switch to this `kind` until further notice. Used to rehearse steps."""

    def forget(self) -> None:
        """Forget what all turns so far have taught. By default, nothing.

        Called after the warm-up, and after steps were rehearsed. What `start` forgets anyway need
        not be forgotten here.
        """


class Wrapper(Drafter):
    """A drafter around another one. It passes everything on; subclasses change some of it."""

    def __init__(self, inner: Drafter) -> None:
        """`inner` may be set up already. If not, this wrapper's `setup` does it."""
        self.inner = inner
        if hasattr(inner, "model"):
            super().setup(inner.model)

    def setup(self, model: Model) -> None:
        self.inner.setup(model)
        super().setup(model)

    @property
    def reads_prompt(self) -> bool:
        return self.inner.reads_prompt

    @property
    def reads_prompt_logits(self) -> bool:
        return self.inner.reads_prompt_logits

    @property
    def captures(self) -> bool:
        return self.inner.captures

    @property
    def max_nodes(self) -> int:
        return self.inner.max_nodes

    @property
    def max_depth(self) -> int:
        return self.inner.max_depth

    @property
    def slots_beyond(self) -> int:
        return self.inner.slots_beyond

    @property
    def kind(self) -> Hashable:
        return self.inner.kind

    def start(self, prompt: Tensor, rows: Rows) -> None:
        self.inner.start(prompt, rows)

    def propose(self, root: Tensor, hidden_state: Tensor) -> Draft:
        return self.inner.propose(root, hidden_state)

    def observe(self, draft: Draft, verified: Verified, node: Tensor) -> None:
        self.inner.observe(draft, verified, node)

    def before_step(self, draft: Draft, forecast: Sequence[float], length: int) -> Draft:
        return self.inner.before_step(draft, forecast, length)

    def after_step(self, kept: int) -> None:
        self.inner.after_step(kept)

    def took(self, seconds: float) -> None:
        self.inner.took(seconds)

    def sizes(self, nodes: int) -> Sequence[int]:
        return self.inner.sizes(nodes)

    def kinds(self) -> Sequence[Hashable]:
        return self.inner.kinds()

    def become(self, kind: Hashable) -> None:
        self.inner.become(kind)

    def forget(self) -> None:
        self.inner.forget()
