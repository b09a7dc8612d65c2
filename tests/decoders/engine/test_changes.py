from types import ModuleType

import pytest

from decoders.engine.changes import Changes


class Owner:
    where = "class"

    def __init__(self):
        self.own = "own"


def test_changes_are_listed_by_what_they_are_for():
    changes, owner = Changes(), Owner()
    assert changes.listed() == {}
    changes.replace(owner, "own", 1, "a number")
    changes.replace(owner, "where", 2, "a number")
    changes.replace(owner, "new", "x", "a text")
    assert changes.listed() == {"a number": 2, "a text": 1}
    assert (owner.own, owner.where, owner.new) == (1, 2, "x")


@pytest.mark.parametrize("fails", [False, True])
def test_off_restores_every_attribute_and_puts_the_change_back(fails):
    """One that the owner did not have itself is gone while they are off."""
    changes, owner = Changes(), Owner()
    for name in ("own", "where", "new"):
        changes.replace(owner, name, "changed", "")
    try:
        with changes.off():
            assert vars(owner) == {"own": "own"} and owner.where == "class"
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert vars(owner) == {"own": "changed", "where": "changed", "new": "changed"}


def test_without_one_purpose_the_others_stay():
    changes, owner = Changes(), Owner()
    changes.replace(owner, "own", 1, "first")
    changes.replace(owner, "own", 2, "second")
    changes.replace(owner, "where", 3, "second")
    with changes.without("second"):
        assert (owner.own, owner.where) == (1, "class")
    with changes.without("first"):
        assert (owner.own, owner.where) == (2, 3)
    assert (owner.own, owner.where) == (2, 3)


def test_an_attribute_that_is_changed_twice_goes_all_the_way_back():
    changes, owner = Changes(), Owner()
    changes.replace(owner, "own", 1, "")
    changes.replace(owner, "own", 2, "")
    with changes.off():
        assert owner.own == "own"
    assert owner.own == 2


@pytest.mark.parametrize("fails", [False, True])
def test_replaced_is_undone_at_the_end(fails):
    changes, owner = Changes(), Owner()
    changes.replace(owner, "own", 1, "kept")
    try:
        with changes.replaced(owner, "own", 2, "for a while"):
            assert owner.own == 2 and changes.listed() == {"kept": 1, "for a while": 1}
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert owner.own == 1 and changes.listed() == {"kept": 1}


def test_two_models_that_change_the_same_function_both_know_the_original():
    """What is changed in a module of transformers is shared by all models of a process."""
    module = ModuleType("shared")
    module.function = "original"
    first, second = Changes(), Changes()
    first.replace(module, "function", lambda: 1, "first")
    second.replace(module, "function", lambda: 2, "second")
    for changes in (first, second, first):
        with changes.off():
            assert module.function == "original"
        assert module.function != "original"
