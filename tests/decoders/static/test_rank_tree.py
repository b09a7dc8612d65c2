import json

import pytest

from decoders.spec import MOST_NODES
from decoders.static.rank_tree import RankTree, checked_paths
from decoders.tree import Tree


def test_a_tree_is_paths_counts_or_an_object():
    for content in (
        [[0], [1], [0, 0]],
        [2, 1],
        {"paths": [[0], [1], [0, 0]], "frequency": [0.5, 0.5, 0.1]},
        [[0, 0], [1], [0]],
    ):
        assert Tree.from_paths(RankTree.parse(content).paths).parent.tolist() == [0, 0, 0, 1]


def test_the_order_of_a_tree_is_kept_where_parents_stand_first():
    """What stands first is verified where only a few nodes are."""
    assert checked_paths([[1], [1, 0], [0]]) == [(1,), (1, 0), (0,)]
    assert checked_paths([[1, 0], [1], [0, 1], [0], [0, 0]]) == [(0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert checked_paths([[0], [0, 0, 0], [0, 0]]) == [(0,), (0, 0), (0, 0, 0)]


def test_frequencies_belong_to_their_paths():
    tree = RankTree.parse({"paths": [[0], [0, 0], [1], [2]], "frequency": [1, 0.5, 0.5, 0]})
    assert tree.paths == [(0,), (0, 0), (1,), (2,)] and tree.frequency == [1, 0.5, 0.5, 0]
    counted = RankTree.parse({"paths": [2, 1], "frequency": [0.5, 0.25, 0.25]})
    assert counted.frequency == [0.5, 0.25, 0.25]
    assert RankTree.parse([[0]]).frequency is None


@pytest.mark.parametrize("as_lists", [True, False])
def test_the_largest_tree(as_lists):
    for nodes in (MOST_NODES, MOST_NODES + 1):
        content = [[rank] for rank in range(nodes - 1)] if as_lists else [nodes - 1]
        if nodes == MOST_NODES:
            assert len(RankTree.parse(content).paths) == nodes - 1
        else:
            with pytest.raises(ValueError, match="not a tree: it has more than 4096 nodes"):
                RankTree.parse(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "non-empty list"),
        ("{}", "needs"),
        ("[[0],[0]]", "twice"),
        ("[[0,1]]", "no parent"),
        ("[[]]", "not a path"),
        ("[[0],[-1]]", "not a path"),
        ("[[0.5]]", "not a path"),
        ("[[0],[0,-1]]", "not a path"),
        ('[[0],["a"]]', "not a path"),
        ("[0, 1]", "entry 1"),
        ("[1, -1]", "entry 1"),
        ("[true]", "entry 0"),
        ("[2, [0]]", "entry 1"),
        ("7", "non-empty"),
        ('{"paths": [[0], [1]], "frequency": [0.5]}', "2 numbers"),
        ('{"paths": [[0], [1]], "frequency": 0.5}', "2 numbers"),
        ('{"paths": [[0], [1]], "frequency": [0.4, 0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [1.5, 0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.5, -0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.5, "0.4"]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.4, NaN]}', "descend"),
        ('{"paths": [[0, 0], [0]], "frequency": [0.5, 0.4]}', "must come after its parent"),
    ],
)
def test_what_is_no_tree_says_why(content, says):
    with pytest.raises(ValueError, match=f"^not a tree: .*{says}"):
        RankTree.parse(json.loads(content))
