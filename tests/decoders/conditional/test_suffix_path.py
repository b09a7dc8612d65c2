"""The path that followed the longest suffix, inside a draft of other candidates."""

import pytest
import torch

from decoders.conditional.decoder import Conditional
from decoders.conditional.suffix_path import SuffixPath
from decoders.tree import Draft, Tree
from tests.helpers.steps import steps_of, tokens_of
from tests.helpers.watching import paths_of

TEXT = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 9, 1])  # 2 follows: then 3, 4, ... came before.


def draft() -> Draft:
    return Draft(Tree.from_parent([0, 0, 0, 1, 1, 3]), torch.tensor([2, 3, 50, 4, 51, 52]))


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, [(), (3,), (50,), (3, 4), (3, 51), (3, 4, 52)]),
        (1, [(), (3,), (50,), (3, 4), (3, 51), (3, 4, 5)]),
        (2, [(), (3,), (50,), (3, 4), (3, 4, 5), (3, 4, 5, 6)]),
        (9, [(), (3,), (3, 4), (3, 4, 5), (3, 4, 5, 6), (3, 4, 5, 6, 7)]),
    ],
)
def test_the_path_takes_the_place_of_the_least_likely_nodes(most, expected):
    """Nodes that lie on the path already are shared."""
    found = SuffixPath(TEXT, most).put_into(draft(), depth=7)
    assert set(paths_of(found)) == set(expected)
    assert len(found.tree) == 6 and found.tree.max_depth == 7


def test_without_a_repetition_the_draft_stays():
    found = SuffixPath(torch.tensor([7, 8]), 4).put_into(draft(), depth=0)
    assert paths_of(found).keys() == paths_of(draft()).keys()


@pytest.mark.parametrize("static_shapes", [False, True])
def test_answers_are_greedys(tiny_model, static_shapes):
    tiny_model.static_shapes = static_shapes
    expected = tokens_of(steps_of(tiny_model, "greedy", 60))
    steps = steps_of(tiny_model, "conditional:nodes=8:suffix=6", 60)
    assert tokens_of(steps) == expected
    assert {step.nodes for step in steps} == {8}


@pytest.mark.parametrize("options", [{"suffix": -1}, {"suffix": 3, "nodes": "auto"}])
def test_it_is_no_part_of_a_budget(options):
    with pytest.raises(ValueError, match="expected 0 or more, and 0 with nodes=auto"):
        Conditional(**options)
