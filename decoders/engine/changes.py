"""Every change that is made to a loaded language model, and the switch for all of them.

A change replaces an attribute: the `forward` of a linear layer, say, or a function in the module of
a model's family. All changes are made here, so that they can be listed, and switched off where the
model is needed as it was loaded.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

_ABSENT = object()  # The owner had no such attribute of its own.
# What attributes of Python modules held before any change. All models of a process share them.
_BEFORE_ALL: dict[tuple[ModuleType, str], object] = {}


@dataclass(frozen=True, eq=False)
class _Change:
    what: str
    owner: object
    name: str
    before: object
    after: object

    def set(self, value: object) -> None:
        if value is _ABSENT:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, value)


class Changes:
    """The changes of one loaded model, in the order in which they were made."""

    def __init__(self) -> None:
        self._made: list[_Change] = []

    def replace(self, owner: object, name: str, value: object, what: str) -> None:
        """Set an attribute of an object or a module. `what` says what the change is for."""
        before = vars(owner).get(name, _ABSENT)
        if isinstance(owner, ModuleType):  # Another model may have changed it already.
            before = _BEFORE_ALL.setdefault((owner, name), before)
        change = _Change(what, owner, name, before, value)
        change.set(value)
        self._made.append(change)

    def listed(self) -> dict[str, int]:
        """The number of changes by purpose (`what`)."""
        return dict(Counter(change.what for change in self._made))

    @contextmanager
    def off(self) -> Iterator[None]:
        """The model as it was loaded. Meant for comparisons, and for training."""
        with self._only([]):
            yield

    @contextmanager
    def without(self, what: str) -> Iterator[None]:
        """The model without the changes for one purpose. Meant for measuring what they bring."""
        with self._only([change for change in self._made if change.what != what]):
            yield

    @contextmanager
    def _only(self, kept: list[_Change]) -> Iterator[None]:
        for change in reversed(self._made):
            change.set(change.before)
        for change in kept:
            change.set(change.after)
        try:
            yield
        finally:
            for change in self._made:
                change.set(change.after)

    @contextmanager
    def replaced(self, owner: object, name: str, value: object, what: str) -> Iterator[None]:
        """`replace`, undone at the end. Meant for measuring."""
        self.replace(owner, name, value, what)
        try:
            yield
        finally:
            change = self._made.pop()
            change.set(change.before)
