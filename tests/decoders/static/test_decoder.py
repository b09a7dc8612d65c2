import pytest

from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from decoders.static.decoder import FILE
from decoders.static.published_trees import published_trees
from decoders.static.rank_tree import RankTree
from tests.helpers.models import tiny_llama
from tests.helpers.steps import FREE, OWN_TREE, bound, made, steps_of


def test_a_tree_that_is_neither_a_name_nor_a_file():
    with pytest.raises(ValueError, match="did you mean 'mc_sim_7b_63'"):
        made("static:tree=mc_sim_7b_36").take({})


def test_a_published_tree_has_one_size():
    with pytest.raises(ValueError, match="has 64 nodes, not 10"):
        made("static:tree=mc_sim_7b_63:nodes=10")


def test_a_tree_of_a_file_has_one_size():
    decoder = made("static:tree=my.json:nodes=10")
    assert decoder.path_of(FILE) == "my.json"
    with pytest.raises(ValueError, match=r"tree my\.json has 3 nodes, not 10"):
        decoder.take({FILE: RankTree([(0,), (1,)])})


def test_only_a_tree_that_the_options_name_is_a_file():
    for spec in ("static", "static:tree=own", "static:tree=zephyr_stage2"):
        assert made(spec).path_of(FILE) is None


def test_a_run_is_told_apart_by_the_paths_of_a_named_tree():
    """A file may change under its name."""
    decoder = made("static:tree=my.json")
    decoder.take({FILE: RankTree([(0,), (1,)])})
    assert decoder.identity == [(0,), (1,)]
    assert made("static:tree=zephyr_stage2").identity == published_trees()["zephyr_stage2"]
    assert made("static").identity is made("static:tree=own").identity is None


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("static:tree=own", "no static tree of its own"),
        ("static:nodes=20", "no static tree of its own"),
    ],
)
def test_a_model_without_a_tree_of_its_own(tiny_model, spec, says):
    with pytest.raises(ValueError, match=says):
        bound(tiny_model, spec)


def test_only_the_heads_of_the_trees_levels_are_asked(tiny_model, monkeypatch):
    asked, original = [], MedusaHeads.forward

    def watched(self, hidden_states, num_heads=None):
        asked.append(num_heads)
        return original(self, hidden_states, num_heads)

    monkeypatch.setattr(MedusaHeads, "forward", watched)
    steps_of(tiny_model, "static:nodes=3:tree=own", 10, files=OWN_TREE)
    assert set(asked) == {2}  # (0,) and (0, 0), of four heads.


def test_without_a_tree_of_its_own_a_model_gets_medusas_first(tiny_model):
    decoder = bound(tiny_model, "static")
    expected = bound(tiny_model, "static:tree=mc_sim_7b_63")
    assert decoder.shape.parent.equal(expected.shape.parent)
    assert decoder.cells.equal(expected.cells)


def test_a_tree_deeper_than_the_heads(tiny_model):
    deep = RankTree.parse([[0], [0, 0], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0]])
    with pytest.raises(ValueError, match=r"tree deep\.json has depth 5, but the model has 4 heads"):
        bound(tiny_model, "static:tree=deep.json", files={FILE: deep})


def test_a_tree_of_more_guesses_than_the_vocabulary_has(tiny_model):
    wide = RankTree.parse([101])
    bound(tiny_model, "static:tree=wide.json", files={FILE: wide})
    with pytest.raises(ValueError, match="takes guess 102 of a vocabulary of 101"):
        bound(tiny_model, "static:tree=wide.json", files={FILE: RankTree.parse([102])})


def test_a_model_without_heads():
    with pytest.raises(ValueError, match="no Medusa heads"):
        bound(Engine(tiny_llama()), "static")


def test_the_tree_is_a_prefix_of_the_models_own(tiny_model):
    own = {FILE: RankTree([(0,), (0, 0), (1,), (0, 1), (2,)])}
    assert bound(tiny_model, "static:nodes=4", files=own).shape.parent.tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="at most 6 nodes, not 7"):
        bound(tiny_model, "static:nodes=7", files=own)


def test_the_models_own_tree_is_the_default(tiny_model):
    for spec in ("static", "static:tree=own"):
        assert bound(tiny_model, spec, files=OWN_TREE).max_nodes == 6


def test_auto_needs_the_frequencies_of_the_models_own_tree(tiny_model):
    for files in ({}, {FILE: RankTree([(0,), (1,)])}):
        with pytest.raises(ValueError, match="search_tree"):
            bound(tiny_model, "static:nodes=auto", FREE, files)
    assert bound(tiny_model, "static:nodes=auto", FREE, OWN_TREE).max_nodes == 6
