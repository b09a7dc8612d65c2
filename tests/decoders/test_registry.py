import subprocess
import sys

import pytest
import torch

from decoders import registry
from decoders.accept import Exact
from decoders.decoder import Decoder
from decoders.dynamic.decoder import Dynamic
from decoders.greedy import Greedy
from decoders.loop import decode
from decoders.registry import NotADecoder, UnknownName
from decoders.spec import Spec
from decoders.step import Stop
from tests.helpers.paths import ROOT
from tests.helpers.plugins import install, write_entry_points
from tests.helpers.steps import made, tokens_of

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

    def propose(self, root, hidden_state):
        return Draft(self.tree, root.expand(self.nodes))

class Plain(Decoder):
    pass
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Another distribution, installed beside ours, that brings a decoder."""
    install(tmp_path, "elsewhere", PLUGIN, {"repeat": "Repeat"})
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("elsewhere", None)


def test_options_of_a_spec_win_over_shared_ones():
    decoder = made("dynamic:nodes=16:normalise=vocab", {"nodes": 8, "topk": 5, "tree": "own"})
    assert decoder == Dynamic(16, 5, None, "vocab")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "dinamic",
            "unknown decoder 'dinamic'. Did you mean 'dynamic'.*Available: assisted, conditional, "
            r"draft, dynamic, .*greedy, .*recycling, static, suffix\.$",
        ),
        ("", "unknown decoder ''"),
        ("dynamic:node=3", "unknown option of decoder 'dynamic' 'node'. Did you mean 'nodes'"),
        ("dynamic:nodes", "'nodes' is not option=value"),
        ("dynamic:nodes=many", "nodes is 'many'; expected auto or a number"),
        ("dynamic:nodes=0", "nodes is 0"),
        ("dynamic:normalise=maybe", "available: topk, vocab"),
        ("static:tree=mc_sim_7b_63:nodes=10", "has 64 nodes, not 10"),
        ("greedy:nodes=4", "unknown option of decoder 'greedy'"),
    ],
)
def test_a_wrong_spec_says_what_is_there(monkeypatch, spec, says):
    monkeypatch.setattr(registry, "plugins", dict)  # Whatever is installed here.
    with pytest.raises(ValueError, match=says):
        made(spec)


@pytest.mark.parametrize("nodes", [0, -3, 5000])
def test_the_nodes_of_any_decoder_are_checked(plugin, nodes):
    with pytest.raises(ValueError, match=f"decoder 'repeat:nodes={nodes}': nodes is {nodes}"):
        made(f"repeat:nodes={nodes}")


def test_a_decoder_from_another_package(plugin, tiny_model):
    assert "repeat" in registry.names() and registry.options("repeat") == {"nodes"}
    answers = []
    for spec in ("greedy", "repeat:nodes=3"):
        decoder = made(spec)
        decoder.setup(tiny_model)
        prompt, stop = torch.tensor([1, 5, 6]), Stop(frozenset(), 40)
        answers.append(tokens_of(list(decode(tiny_model, decoder, prompt, Exact(), stop))))
    assert answers[0] == answers[1]


def test_a_plugin_cannot_take_a_name_that_is_ours(plugin):
    write_entry_points(plugin, "elsewhere", {"greedy": "Repeat"})
    assert registry.load("greedy") is Greedy
    assert registry.names().count("greedy") == 1


@pytest.mark.parametrize("target", ["Plain", "Tree", "dataclass"])
def test_a_plugin_must_be_a_dataclass_of_options(plugin, target):
    write_entry_points(plugin, "elsewhere", {"repeat": target})
    with pytest.raises(NotADecoder, match="expected a class under @dataclass"):
        registry.load("repeat")


def test_two_packages_with_one_name_are_refused(plugin, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    install(other, "other_one", PLUGIN, {"repeat": "Repeat"})
    monkeypatch.syspath_prepend(other)
    with pytest.raises(NotADecoder, match="of two packages, elsewhere 1"):
        registry.load("repeat")


def test_a_name_that_cannot_be_typed_is_no_name(plugin):
    write_entry_points(plugin, "elsewhere", {"a:b": "Repeat", "a,b": "Repeat", "ab": "Repeat"})
    assert [name for name in registry.names() if name not in registry.BUILT_IN] == ["ab"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("medusa", "static"),
        ("Medusa_Plus", "dynamic"),
        ("baseline", "greedy"),
        ("GREEDY", "greedy"),
        ("token_recycling", "recycling"),
        ("condtional", "conditional"),
    ],
)
def test_what_others_call_a_decoder_is_understood(name, meant):
    with pytest.raises(UnknownName, match=f"Did you mean '{meant}'"):
        registry.check(Spec.parse(name))


@pytest.mark.parametrize("text", ["dinamic", "dynamic:node=3", "conditional:head=true"])
def test_a_typing_error_is_found_without_torch(text):
    code = (
        "import sys; from decoders import registry; from decoders.spec import Spec\n"
        f"try: registry.check(Spec.parse({text!r}))\n"
        "except registry.UnknownName: assert 'torch' not in sys.modules\n"
        "else: raise SystemExit('nothing was found')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_name_is_a_decoder():
    names = [
        "assisted", "conditional", "draft", "dynamic", "eagle", "greedy", "hf-greedy", "hf-static",
        "hydra",
        "prompt-lookup", "recycling", "static", "suffix",
    ]  # fmt: skip
    assert [name for name in registry.names() if name in registry.BUILT_IN] == names
    for name in names:
        assert issubclass(registry.load(name), Decoder)


def test_an_unknown_name_is_a_value_error():
    assert issubclass(UnknownName, ValueError)


def test_a_flag_for_all_decoders_is_checked_as_an_option_is():
    """It used to reach the decoder unchecked, and end in a traceback."""
    for spec, shared in (("prompt-lookup:tokens=auto", {}), ("prompt-lookup", {"tokens": "auto"})):
        with pytest.raises(ValueError, match="option tokens is 'auto'; expected int"):
            made(spec, shared)
    assert made("dynamic", {"nodes": "auto"}).nodes == "auto"
    assert made("dynamic", {"depth": 2}).depth == 2
    assert made("dynamic", {"depth": None}).depth is None


def test_the_names_of_decoders_need_no_torch():
    code = (
        "import sys; from decoders import registry; from decoders.spec import Spec; "
        "Spec.parse('dynamic:nodes=4'); registry.names(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
