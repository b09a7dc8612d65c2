import doctest
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import decoders.accept
import decoders.dynamic.top_paths
import decoders.tree
from decoders.tree import (
    MOST_BYTES,
    MOST_NODES,
    Draft,
    Tree,
    checked_paths,
    paths_from_child_counts,
    published_trees,
    read_tree,
)
from tests.helpers.paths import SHARED


@pytest.mark.parametrize("module", [decoders.tree, decoders.dynamic.top_paths, decoders.accept])
def test_the_examples_in_docstrings_are_true(module):
    result = doctest.testmod(module, extraglobs={"torch": torch, "Tree": Tree})
    assert result.attempted > 0 and result.failed == 0


def test_mask_as_a_picture():
    tree = Tree.from_parent([0, 0, 0, 1, 1, 3])
    picture = [
        "".join(".#"[value == 0] for value in row)
        for row in tree.mask(torch.int8, hidden=1).tolist()
    ]
    assert picture == [
        "#.....",
        "##....",
        "#.#...",
        "##.#..",
        "##..#.",
        "##.#.#",
    ]
    behind = tree.mask(torch.int8, 1, committed=3, width=11)
    assert behind.eq(tree.mask(torch.int8, 1, committed=torch.tensor([3]), width=11)).all()
    assert (
        not behind[:, :3].any()
        and behind[:, 9:].all()
        and behind[:, 3:9].eq(tree.mask(torch.int8, 1)).all()
    )
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 3]
    assert tree.parent.tolist() == [0, 0, 0, 1, 1, 3]
    assert (len(tree), tree.max_depth) == (6, 3)


def test_a_mask_far_into_the_text():
    tree = Tree.from_parent([0, 0, 1])
    mask = tree.mask(torch.int8, 1, committed=9000)
    assert (
        mask.shape == (3, 9003)
        and not mask[:, :9000].any()
        and mask[:, 9000:].equal(tree.mask(torch.int8, 1))
    )


@pytest.mark.parametrize("committed", [3, torch.tensor([3], device="meta")])
def test_a_tree_is_moved_whole_and_its_mask_is_made_where_it_lies(committed):
    tree = Tree.from_parent([0, 0, 1]).to(torch.device("meta"))
    assert tree.depth.is_meta and tree.parent.is_meta and tree.lines.is_meta
    mask = tree.mask(torch.float16, -1.0, committed, width=8)
    assert mask.is_meta and (mask.shape, mask.dtype) == ((3, 8), torch.float16)


def test_the_first_nodes_of_a_draft():
    tree = Tree.from_parent([0, 0, 0, 1])
    draft = Draft(tree, torch.tensor([9, 5, 6, 7]), torch.tensor([0.0, -1.0, -2.0, -3.0]))
    assert draft.first(4) is draft
    first = draft.first(2)
    assert (first.token.tolist(), first.log_prob.tolist()) == ([9, 5], [0.0, -1.0])
    assert (first.tree.depth.tolist(), first.tree.parent.tolist()) == ([0, 1], [0, 0])
    assert first.tree.lines.tolist() == [[0, 0], [1, 1]]
    assert Draft(tree, draft.token).first(2).log_prob is None


parents = st.integers(1, 40).flatmap(
    lambda n: st.tuples(st.just(0), *(st.integers(0, i - 1) for i in range(1, n)))
)


@settings(max_examples=150, deadline=None)
@given(parents)
def test_everything_follows_from_parent(parent):
    """Against the plain definitions, one node at a time."""
    tree = Tree.from_parent(parent)
    for node in range(len(parent)):
        line = [node]
        while line[-1] != 0:
            line.append(parent[line[-1]])
        assert tree.depth[node] == len(line) - 1
        assert tree.parent[node] == parent[node]
        assert tree.mask(torch.int8, hidden=1)[node].eq(0).nonzero().flatten().tolist() == sorted(
            line
        )
        path = [0, *tree.lines[node].tolist()]
        assert path[: len(line)] == line[::-1]
        assert set(path[len(line) :]) <= {node}


@pytest.mark.parametrize("parent", [[], [1], [0, 1], [0, 2, 0], [0, -1]])
def test_what_is_not_a_parent_array_is_refused(parent):
    with pytest.raises(ValueError, match=r"root|parent"):
        Tree.from_parent(parent)


def test_published_trees():
    trees = published_trees()
    assert len(trees) == 9
    for name, paths in trees.items():
        assert len(paths) == 63, name
        assert checked_paths(paths) == paths
    facts = SHARED.parent / "facts" / "published_trees.json"
    if not facts.exists():
        pytest.skip("the published child counts are not here to compare with (../shared/facts)")
    assert trees == {
        name: paths_from_child_counts(counts)
        for name, counts in json.loads(facts.read_text()).items()
    }


def test_a_tree_file_may_hold_paths_counts_or_an_object(tmp_path):
    file = tmp_path / "tree.json"
    for content in (
        [[0], [1], [0, 0]],
        [2, 1],
        {"paths": [[0], [1], [0, 0]], "frequency": [0.5, 0.5, 0.1]},
        [[0, 0], [1], [0]],
    ):
        file.write_text(json.dumps(content))
        assert Tree.from_paths(read_tree(file).paths).parent.tolist() == [0, 0, 0, 1]


def test_the_order_of_a_tree_is_kept_where_parents_stand_first():
    """What stands first is verified when there is room for a few nodes alone."""
    assert checked_paths([[1], [1, 0], [0]]) == [(1,), (1, 0), (0,)]
    assert checked_paths([[1, 0], [1], [0, 1], [0], [0, 0]]) == [(0,), (1,), (0, 0), (0, 1), (1, 0)]
    assert checked_paths([[0], [0, 0, 0], [0, 0]]) == [(0,), (0, 0), (0, 0, 0)]


def test_frequencies_belong_to_their_paths(tmp_path):
    file = tmp_path / "tree.json"
    file.write_text('{"paths": [[0], [0, 0], [1], [2]], "frequency": [1, 0.5, 0.5, 0]}')
    tree = read_tree(file)
    assert tree.paths == [(0,), (0, 0), (1,), (2,)] and tree.frequency == [1, 0.5, 0.5, 0]
    file.write_text('{"paths": [2, 1], "frequency": [0.5, 0.25, 0.25]}')
    assert read_tree(file).frequency == [0.5, 0.25, 0.25]
    file.write_text("[[0]]")
    assert read_tree(file).frequency is None


@pytest.mark.parametrize("lists", [True, False])
def test_the_largest_tree(tmp_path, lists):
    file = tmp_path / "tree.json"
    for nodes in (MOST_NODES, MOST_NODES + 1):
        file.write_text(json.dumps([[rank] for rank in range(nodes - 1)] if lists else [nodes - 1]))
        if nodes == MOST_NODES:
            assert len(read_tree(file).paths) == nodes - 1
        else:
            with pytest.raises(ValueError, match="more than 4096 nodes"):
                read_tree(file)


def test_the_largest_file(tmp_path):
    file = tmp_path / "tree.json"
    assert MOST_BYTES == 16 * 1024**2
    file.write_text("[[0]]".ljust(MOST_BYTES))
    assert read_tree(file).paths == [(0,)]
    file.write_text("[[0]]".ljust(MOST_BYTES + 1))
    with pytest.raises(ValueError, match="more than 16 MiB"):
        read_tree(file)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[]", "non-empty list"), ("{}", "needs"), ("[[0],[0]]", "twice"), ("[[0,1]]", "no parent"), ("[[]]", "not a path"),
        ("[[0],[-1]]", "not a path"), ("[[0.5]]", "not a path"), ("[[0],[0,-1]]", "not a path"), ('[[0],["a"]]', "not a path"),
        ("[0, 1]", "entry 1"), ("[1, -1]", "entry 1"),
        ("[true]", "entry 0"), ("[2, [0]]", "entry 1"), ("nonsense", "not a tree"), ("7", "non-empty"),
        ("[" * 5000, "not a tree"),
        ('{"paths": [[0], [1]], "frequency": [0.5]}', "2 numbers"),
        ('{"paths": [[0], [1]], "frequency": 0.5}', "2 numbers"),
        ('{"paths": [[0], [1]], "frequency": [0.4, 0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [1.5, 0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.5, -0.5]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.5, "0.4"]}', "descend"),
        ('{"paths": [[0], [1]], "frequency": [0.4, NaN]}', "descend"),
        ('{"paths": [[0, 0], [0]], "frequency": [0.5, 0.4]}', "behind"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_tree_says_why(tmp_path, content, says):
    file = tmp_path / "tree.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=says):
        read_tree(file)
