import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.tree import Draft, Tree


def test_everything_about_a_tree_in_a_picture():
    tree = Tree.from_parent([0, 0, 0, 1, 1, 3])
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 3]
    assert tree.parent.tolist() == [0, 0, 0, 1, 1, 3]
    assert (len(tree), tree.max_depth) == (6, 3)


def test_a_tree_is_moved_whole():
    tree = Tree.from_parent([0, 0, 1]).to(torch.device("meta"))
    assert tree.depth.is_meta and tree.parent.is_meta and tree.ancestors.is_meta


def test_the_first_nodes_of_a_draft():
    tree = Tree.from_parent([0, 0, 0, 1])
    draft = Draft(tree, torch.tensor([9, 5, 6, 7]), torch.tensor([0.0, -1.0, -2.0, -3.0]))
    assert draft.truncated(4) is draft
    first = draft.truncated(2)
    assert (first.token.tolist(), first.log_prob.tolist()) == ([9, 5], [0.0, -1.0])
    assert (first.tree.depth.tolist(), first.tree.parent.tolist()) == ([0, 1], [0, 0])
    assert first.tree.ancestors.tolist() == [[0, 0], [1, 1]]
    assert Draft(tree, draft.token).truncated(2).log_prob is None


parents = st.integers(1, 40).flatmap(
    lambda nodes: st.tuples(st.just(0), *(st.integers(0, node - 1) for node in range(1, nodes)))
)


@settings(max_examples=150, deadline=None)
@given(parents)
def test_everything_follows_from_parent(parent):
    """Against the plain definitions, one node at a time."""
    tree = Tree.from_parent(parent)
    for node in range(len(parent)):
        upwards = [node]
        while upwards[-1] != 0:
            upwards.append(parent[upwards[-1]])
        assert tree.depth[node] == len(upwards) - 1
        assert tree.parent[node] == parent[node]
        path = [0, *tree.ancestors[node].tolist()]
        assert path[: len(upwards)] == upwards[::-1]
        assert set(path[len(upwards) :]) <= {node}


@pytest.mark.parametrize("parent", [[], [1], [0, 1], [0, 2, 0], [0, -1]])
def test_what_is_not_a_parent_array_is_refused(parent):
    with pytest.raises(ValueError, match=r"root|parent"):
        Tree.from_parent(parent)
