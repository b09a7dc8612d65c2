import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders.engine.engine import Engine
from decoders.model.attention import AttentionMasks, tree_mask
from decoders.model.model import Model, UnsupportedModel
from decoders.tree import Tree
from tests.helpers.models import TINY, tiny_llama

parents = st.integers(1, 40).flatmap(
    lambda nodes: st.tuples(st.just(0), *(st.integers(0, node - 1) for node in range(1, nodes)))
)


def test_a_mask_as_a_picture():
    tree = Tree.from_parent([0, 0, 0, 1, 1, 3])
    alone = tree_mask(tree, torch.int8, masked=1)
    picture = ["".join(".#"[value == 0] for value in row) for row in alone.tolist()]
    assert picture == [
        "#.....",
        "##....",
        "#.#...",
        "##.#..",
        "##..#.",
        "##.#.#",
    ]
    after = tree_mask(tree, torch.int8, 1, committed=3, width=11)
    assert after.equal(tree_mask(tree, torch.int8, 1, committed=torch.tensor([3]), width=11))
    assert not after[:, :3].any() and after[:, 9:].all()
    assert after[:, 3:9].equal(alone)


def test_a_mask_far_into_the_text():
    tree = Tree.from_parent([0, 0, 1])
    mask = tree_mask(tree, torch.int8, 1, committed=9000)
    assert mask.shape == (3, 9003) and not mask[:, :9000].any()
    assert mask[:, 9000:].equal(tree_mask(tree, torch.int8, 1))


@pytest.mark.parametrize("committed", [3, torch.tensor([3], device="meta")])
def test_a_mask_is_made_where_its_tree_lies(committed):
    tree = Tree.from_parent([0, 0, 1]).to(torch.device("meta"))
    mask = tree_mask(tree, torch.float16, -1.0, committed, width=8)
    assert mask.is_meta and (mask.shape, mask.dtype) == ((3, 8), torch.float16)


@settings(max_examples=150, deadline=None)
@given(parents)
def test_a_node_sees_itself_and_its_ancestors(parent):
    mask = tree_mask(Tree.from_parent(parent), torch.int8, masked=1)
    for node in range(len(parent)):
        upwards = [node]
        while upwards[-1] != 0:
            upwards.append(parent[upwards[-1]])
        assert mask[node].eq(0).nonzero().flatten().tolist() == sorted(upwards)


@pytest.mark.parametrize("committed", [5, torch.tensor([5])])
def test_a_window_is_of_positions_not_of_slots(committed):
    """A window of 3 holds a node, its parent and its grandparent, whichever slots these have."""
    config = tiny_llama().config
    config.sliding_window = 3
    tree = Tree.from_parent([0, 0, 0, 1, 2, 3])
    mask = AttentionMasks(config, torch.float32).of(tree, committed, width=12)[0, 0]
    seen = [row.eq(0).nonzero().flatten().tolist() for row in mask]
    # Positions 3 and 4 are committed text; the root has slot and position 5.
    assert seen == [[3, 4, 5], [4, 5, 6], [4, 5, 7], [5, 6, 8], [5, 7, 9], [6, 8, 10]]


def test_layers_of_an_unknown_type_are_refused():
    config = tiny_llama().config
    config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="layers of type 'linear_attention'"):
        AttentionMasks(config, torch.float32)
    lm = tiny_llama(num_hidden_layers=TINY["num_hidden_layers"])
    lm.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(UnsupportedModel, match="LlamaForCausalLM cannot attend a tree"):
        Model(lm)


@pytest.mark.parametrize("kind", [Model, Engine])
def test_a_model_that_ignores_the_tree_mask_is_noticed(kind, monkeypatch):
    """What a bool mask under eager attention, or a family with its own masks, would do silently."""
    model = kind(tiny_llama())
    monkeypatch.setattr(AttentionMasks, "of", lambda self, *_: None)
    with pytest.raises(UnsupportedModel, match="differs from plain text"):
        model.check_tree_attention()
