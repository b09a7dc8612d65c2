"""Runs with a decoder of another package: what is said where it is wrong."""

import json
import sys

import pytest

from bench.common.errors import UserError
from bench.running.config import RunConfig
from bench.running.decoders import make_decoder, make_decoders, plugin_digests
from bench.running.session import run
from bench.store.turn import read_turns
from decoders import registry
from tests.helpers.plugins import install

PLUGIN = """
from dataclasses import dataclass
import torch
from decoders.decoder import Decoder
from decoders.tree import Draft, Tree

@dataclass
class Own(Decoder):
    how: str = "well"
    nodes: int | str = 4
    asked = 0

    def setup(self, model):
        if self.how == "no setup":
            raise KeyError("weights")
        self.tree = Tree.from_parent([0, 0, 0, 1])
        super().setup(model)

    @property
    def max_depth(self):
        return 2

    def propose(self, root, hidden_state):
        self.asked += 1
        token = torch.cat((root, torch.tensor([5, 6, 7])))
        if self.how == "later" and self.asked > 40:
            raise SystemExit(0)
        if self.how == "index" and self.asked > 40:
            return token[100]
        return Draft(self.tree, token + (self.how == "another root"))
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """The file of a package that brings the decoder `own`, and `none`, which is not there."""
    folder = tmp_path / "site"
    file = install(folder, "own_decoder", PLUGIN, {"own": "Own", "none": "Nothing"})
    monkeypatch.syspath_prepend(folder)
    yield file
    sys.modules.pop("own_decoder", None)


def config(model, questions, *decoders: str, **changes) -> RunConfig:
    return RunConfig(
        decoders,
        model=str(model),
        questions=str(questions),
        device="cpu",
        max_new_tokens=30,
        **changes,
    )


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            "own:how=another root",
            "decoder 'own:how=another root' cannot run on .*begins with token",
        ),
        ("own:nodes=auto", "nodes=auto weighs nodes by the log_prob"),
        ("own:how=no setup", r"cannot be set up: KeyError: 'weights' \(own_decoder.py, line 15\)"),
        ("none", "decoder 'none' cannot be loaded: AttributeError"),
    ],
)
def test_a_wrong_decoder_is_told_before_the_first_answer(
    plugin, model, questions, tmp_path, spec, says
):
    turns = tmp_path / "run" / "turns.jsonl"
    with pytest.raises(UserError, match=says):
        run(config(model, questions, "greedy", spec), tmp_path / "run", ["test"])
    assert not turns.exists() or not turns.read_text()


def test_a_decoder_is_a_dataclass(plugin):
    assert "own" in registry.names()
    plugin.write_text(PLUGIN.replace("@dataclass\n", ""))
    with pytest.raises(ValueError, match="expected a class under @dataclass"):
        make_decoder("own")


@pytest.mark.parametrize(("how", "said"), [("later", "SystemExit: 0"), ("index", "IndexError: ")])
def test_what_goes_wrong_later_is_a_failed_turn_that_says_where(
    plugin, model, questions, tmp_path, how, said
):
    folder = run(config(model, questions, f"own:how={how}", "greedy"), tmp_path / "run", ["test"])
    failed = list(folder.failures.values())
    assert failed and len(folder) > len(failed)
    assert all(each.startswith(said) and "(own_decoder.py, line " in each for each in failed)


def test_a_run_does_not_go_on_with_another_decoder_of_that_name(plugin, model, questions, tmp_path):
    asked, out = config(model, questions, "own"), tmp_path / "run"
    run(asked, out, ["test"])
    turns, _ = read_turns(out / "turns.jsonl")
    run(asked, out, ["test"])
    plugin.write_text(PLUGIN.replace("[5, 6, 7]", "[5, 6, 8]"))
    with pytest.raises(UserError, match=r"another configuration.*plugins"):
        run(asked, out, ["test"])
    assert len(read_turns(out / "turns.jsonl")[0]) == len(turns)
    assert plugin_digests(make_decoders(config(model, questions, "greedy"))) == {}
    assert "plugins" in json.loads((out / "run.json").read_text())["config"]
