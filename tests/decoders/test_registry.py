import sys

import pytest

from decoders.dynamic.decoder import Dynamic
from decoders.registry import UnknownName, available, make
from decoders.tree import RankTree
from tests.helpers.models import tiny_llama

PLUGIN = """
from dataclasses import dataclass
from decoders.decoder import Decoder
from decoders.tree import Draft, Tree

@dataclass
class Repeat(Decoder):
    nodes: int = 4

    def setup(self, model):
        self.tree = Tree.from_parent([0, *range(self.nodes - 1)]).to(model.device)
        super().setup(model)

    def propose(self, root, hidden):
        return Draft(self.tree, root.expand(self.nodes))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Another distribution, installed beside ours, that brings a decoder."""
    (tmp_path / "elsewhere.py").write_text(PLUGIN)
    info = tmp_path / "elsewhere-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medusa_bench.decoders]\nrepeat = elsewhere:Repeat\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("elsewhere", None)


def test_options_of_a_spec_win_over_shared_ones():
    assert make(
        "dynamic:nodes=16:normalise=vocab", {"nodes": 8, "topk": 5, "tree": "own"}
    ) == Dynamic(16, 5, None, "vocab")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "dinamic",
            "unknown decoder 'dinamic'. Did you mean 'dynamic'.*Available: conditional, dynamic, greedy, ",
        ),
        ("", "unknown decoder ''"),
        ("dynamic:node=3", "unknown option of decoder 'dynamic' 'node'. Did you mean 'nodes'"),
        ("dynamic:nodes", "'nodes' is not option=value"),
        ("dynamic:nodes=many", "nodes is 'many'; expected auto or a number"),
        ("dynamic:nodes=0", "nodes is 0"),
        ("dynamic:normalise=maybe", "available: topk, vocab"),
        ("static:tree=mc_sim_7b_36", "did you mean 'mc_sim_7b_63'"),
        ("static:tree=mc_sim_7b_63:nodes=10", "has 64 nodes, not 10"),
        ("greedy:nodes=4", "unknown option of decoder 'greedy'"),
    ],
)
def test_a_wrong_spec_says_what_is_there(spec, says):
    with pytest.raises(ValueError, match=says):
        make(spec)


@pytest.mark.parametrize("nodes", [0, -3, 5000])
def test_the_nodes_of_any_decoder_are_checked(plugin, nodes):
    with pytest.raises(ValueError, match=f"decoder 'repeat:nodes={nodes}': nodes is {nodes}"):
        make(f"repeat:nodes={nodes}")


def test_a_decoder_from_another_package(plugin, tiny_model):
    import torch

    from decoders.accept import Exact
    from decoders.loop import Stop, decode

    assert "repeat" in available()
    answers = []
    for spec in ("greedy", "repeat:nodes=3"):
        decoder = make(spec)
        decoder.setup(tiny_model)
        steps = decode(tiny_model, decoder, torch.tensor([1, 5, 6]), Exact(), Stop(frozenset(), 40))
        answers.append([token for step in steps for token in step.tokens])
    assert answers[0] == answers[1]


def test_a_plugin_cannot_take_a_name_that_is_ours(plugin, tmp_path):
    info = tmp_path / "elsewhere-1.0.dist-info"
    (info / "entry_points.txt").write_text("[medusa_bench.decoders]\ngreedy = elsewhere:Repeat\n")
    assert available()["greedy"]().__name__ == "Greedy"


def test_an_unknown_name_is_a_value_error():
    assert issubclass(UnknownName, ValueError)


@pytest.mark.parametrize(
    ("spec", "says"),
    [("dynamic:depth=5", "5 deep, but the model has 4 heads"), ("dynamic:topk=500", "vocabulary has 101"),
     ("static:tree=own", "no static tree of its own"), ("static:nodes=20", "no static tree of its own")],
)  # fmt: skip
def test_what_does_not_fit_the_model(tiny_model, spec, says):
    with pytest.raises(ValueError, match=says):
        make(spec).setup(tiny_model)


def test_a_tree_deeper_than_the_heads(tiny_model, tmp_path):
    (tmp_path / "deep.json").write_text("[[0],[0,0],[0,0,0],[0,0,0,0],[0,0,0,0,0]]")
    with pytest.raises(ValueError, match="5 deep, but the model has 4 heads"):
        make(f"static:tree={tmp_path / 'deep.json'}").setup(tiny_model)


def test_a_model_without_heads():
    from decoders.model.model import Model

    for spec in ("static", "dynamic"):
        with pytest.raises(ValueError, match="no Medusa heads"):
            make(spec).setup(Model(tiny_llama()))


def test_the_static_tree_is_a_prefix_of_the_models_own(tiny_model):
    tiny_model.static_tree = RankTree([(0,), (0, 0), (1,), (0, 1), (2,)])
    decoder = make("static:nodes=4")
    decoder.setup(tiny_model)
    assert decoder.shape.parent.tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="at most 6 nodes, not 7"):
        make("static:nodes=7").setup(tiny_model)


def test_a_flag_for_all_decoders_is_checked_as_an_option_is():
    """It used to reach the decoder as it was, and end in a traceback."""
    for spec, shared in (("prompt-lookup:tokens=auto", {}), ("prompt-lookup", {"tokens": "auto"})):
        with pytest.raises(ValueError, match="option tokens is 'auto'; expected int"):
            make(spec, shared)
    assert (
        make("dynamic", {"nodes": "auto"}).nodes == "auto"
        and make("dynamic", {"depth": 2}).depth == 2
    )
    assert make("dynamic", {"depth": None}).depth is None
