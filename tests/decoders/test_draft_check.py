"""What is said of a draft that is none."""

from dataclasses import dataclass, replace

import pytest
import torch

from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.draft_check import Checked, check_draft
from decoders.step import Stop
from decoders.tree import NO_GUESS, Draft, Tree
from tests.helpers.steps import FREE, bound, made, steps_of, turn

ROOT = torch.tensor([9])


@dataclass
class Any(Decoder):
    nodes: int | str = 4


@pytest.fixture
def decoder(tiny_model) -> Decoder:
    decoder = Any()
    decoder.setup(tiny_model)
    return decoder


def good() -> Draft:
    return Draft(
        Tree.from_parent([0, 0, 0, 1]),
        torch.tensor([9, 5, 6, 5]),
        torch.tensor([0.0, -1.0, -2.0, -3.0]),
    )


def with_token(*tokens: float) -> Draft:
    return replace(good(), token=torch.tensor(tokens))


def with_tree(**changes) -> Draft:
    return replace(good(), tree=replace(good().tree, **changes))


def with_log_prob(*values: float) -> Draft:
    return replace(good(), log_prob=torch.tensor(values))


@pytest.mark.parametrize(
    "draft",
    [
        good(),
        replace(good(), log_prob=None),
        with_token(9, 5, 6, NO_GUESS),
        # Deeper tables than the tree, padded with each node itself.
        with_tree(ancestors=torch.tensor([[0, 0, 0], [1, 1, 1], [2, 2, 2], [1, 3, 3]])),
        Draft.of_root(ROOT),
    ],
)
def test_a_draft_that_is_one(draft, decoder):
    check_draft(draft, ROOT, decoder)


@pytest.mark.parametrize(
    ("draft", "says"),
    [
        (None, "propose returned a NoneType"),
        (with_token(9.0, 5.0, 6.0, 5.0), "token is torch.float32"),
        (with_token(9, 5), "a draft has 2 tokens for a tree of 4 nodes"),
        (
            Draft(Tree.from_parent([0, 0]).truncated(0), torch.tensor([], dtype=torch.long)),
            "has 0 nodes; expected 1 to 4",
        ),
        (
            Draft(Tree.from_parent([0] * 5), torch.tensor([9, 1, 2, 3, 4])),
            "has 5 nodes; expected 1 to 4",
        ),
        (
            with_tree(ancestors=torch.zeros(4, 5, dtype=torch.long)),
            "ancestors have 5 levels; the decoder's max_depth is 3",
        ),
        (with_token(8, 5, 6, 5), "begins with token 8; expected the root it was asked for, 9"),
        (with_token(9, 5, 101, 5), "node 2 of a draft has token 101; the vocabulary has 101"),
        (with_token(9, 5, -1, 5), "node 2 of a draft has token -1"),
        (with_token(9, 5, 5, 5), "one parent and one token"),
        (
            with_tree(parent=torch.tensor([0, 3, 0, 0])),
            "node 1 has parent 3; a parent stands before its children",
        ),
        (with_tree(depth=torch.tensor([0, 2, 2, 3])), "depths .* are not those of its parents"),
        (
            with_tree(ancestors=torch.tensor([[0, 0], [1, 1], [2, 2], [2, 3]])),
            "ancestors are not those of its parents",
        ),
        (with_log_prob(0.0, -1.0), r"log_prob is torch.float32 \[2\]; expected"),
        (with_log_prob(0, -1, -2, -3), r"log_prob is torch.int64 \[4\]; expected a float"),
        (with_log_prob(0.0, -1.0, torch.nan, -3.0), "log_prob holds NaN"),
        (with_log_prob(0.0, -1.0, 0.1, -3.0), "holds the logarithm of more than 1"),
    ],
)
def test_a_draft_that_is_none(draft, says, decoder):
    with pytest.raises(ValueError, match=says):
        check_draft(draft, ROOT, decoder)


def test_what_auto_weighs_must_be_there_and_descend(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", FREE).inner
    with pytest.raises(ValueError, match="the draft has none"):
        check_draft(replace(good(), log_prob=None), ROOT, decoder)
    with pytest.raises(ValueError, match="must descend"):
        check_draft(with_log_prob(0.0, -2.0, -1.0, -3.0), ROOT, decoder)
    check_draft(Draft.of_root(ROOT), ROOT, decoder)


@pytest.mark.parametrize(
    "spec",
    ["greedy", "static", "dynamic:nodes=16", "conditional:nodes=64", "conditional:heads=false"],
)
def test_our_own_drafts_are_drafts(spec, tiny_model, monkeypatch):
    """Each of them is checked, and checking changes neither the steps nor the decoder."""
    asked = []

    def count(draft, root, decoder):
        asked.append(decoder)
        check_draft(draft, root, decoder)

    monkeypatch.setattr("decoders.draft_check.check_draft", count)
    decoder = bound(tiny_model, spec)
    expected = [step.tokens for step in steps_of(tiny_model, spec)]
    attributes = vars(decoder).keys()
    checked_turn = turn(sum(map(len, expected)), Exact())
    steps = list(decoder.decode(*checked_turn, watched_by=Checked))
    assert [step.tokens for step in steps] == expected
    assert asked == [decoder] * (1 + len(steps))  # The last one is for a step that does not come.
    assert vars(decoder).keys() == attributes
    assert "propose" not in vars(decoder) and "captures" not in vars(decoder)


def test_a_checked_step_is_not_captured(tiny_model):
    decoder = bound(tiny_model, "dynamic")
    assert decoder.captures and not Checked(decoder).captures


def test_a_wrong_draft_ends_the_turn(decoder):
    decoder.propose = lambda root, hidden_state: replace(good(), token=root.expand(4))
    with pytest.raises(ValueError, match="one parent and one token"):
        list(decoder.decode(*turn(5, Exact()), watched_by=Checked))


def test_tokens_that_are_no_tensor_are_named(decoder):
    with pytest.raises(ValueError, match="token is a list; expected an int64 tensor"):
        check_draft(replace(good(), token=[9, 5, 6, 5]), torch.tensor([9]), decoder)


def test_what_a_class_lacks_is_named(tiny_model):
    """Neither a method `propose` nor any number of nodes."""

    @dataclass
    class Empty(Decoder):
        pass

    empty = Empty()
    empty.setup(tiny_model)
    with pytest.raises(NotImplementedError, match="Empty needs an option nodes, or a property"):
        list(empty.decode(torch.tensor([1]), Exact(), Stop(frozenset(), 3)))
    with pytest.raises(NotImplementedError, match="Empty has no method propose"):
        empty.propose(torch.tensor([1]), torch.zeros(1, 32))


def test_auto_without_a_budget_is_said():
    with pytest.raises(ValueError, match="nodes is auto, which needs a budget"):
        _ = made("dynamic:nodes=auto").max_nodes
