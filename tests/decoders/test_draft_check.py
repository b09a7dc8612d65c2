"""Decoders of anyone's: what is said of a draft that is none, and of what goes wrong in them."""

import json
import sys
from dataclasses import dataclass, replace

import pytest
import torch

from bench.common.errors import UserError
from bench.running.config import RunConfig
from bench.running.runner import run
from bench.store.records import read_turns
from decoders.decoder import Decoder
from decoders.draft_check import check_draft, checked
from decoders.registry import available, make
from decoders.tree import NO_GUESS, Draft, Tree
from tests.helpers.steps import bound, steps_of, turn

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

    def propose(self, root, hidden):
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
    path = tmp_path / "site"
    info = path / "own-1.0.dist-info"
    info.mkdir(parents=True)
    (path / "own_decoder.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[medusa_bench.decoders]\nown = own_decoder:Own\nnone = own_decoder:Nothing\n"
    )
    monkeypatch.syspath_prepend(path)
    yield path / "own_decoder.py"
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


@dataclass
class Any(Decoder):
    nodes: int | str = 4


def good() -> Draft:
    return Draft(
        Tree.from_parent([0, 0, 0, 1]),
        torch.tensor([9, 5, 6, 5]),
        torch.tensor([0.0, -1.0, -2.0, -3.0]),
    )


def with_tree(**changes) -> Draft:
    return replace(good(), tree=replace(good().tree, **changes))


@pytest.mark.parametrize(
    "draft",
    [
        good(),
        replace(good(), log_prob=None),
        replace(good(), token=torch.tensor([9, 5, 6, NO_GUESS])),
    ],
)
def test_a_draft_that_is_one(draft, tiny_model):
    decoder = Any()
    decoder.setup(tiny_model)
    check_draft(draft, torch.tensor([9]), decoder)


@pytest.mark.parametrize(
    ("draft", "says"),
    [
        (None, "propose returned a NoneType"),
        (replace(good(), token=torch.tensor([9.0, 5.0, 6.0, 5.0])), "token is torch.float32"),
        (
            replace(good(), token=torch.tensor([9, 5])),
            r"parent is torch.int64 \[4\]; expected torch.int64 \[2\]",
        ),
        (
            Draft(Tree.from_parent([0, 0]).first(0), torch.tensor([], dtype=torch.long)),
            "has 0 nodes; expected 1 to 4",
        ),
        (
            Draft(Tree.from_parent([0] * 5), torch.tensor([9, 1, 2, 3, 4])),
            "has 5 nodes; expected 1 to 4",
        ),
        (
            replace(good(), token=torch.tensor([8, 5, 6, 5])),
            "begins with token 8; expected the root it was asked for, 9",
        ),
        (
            replace(good(), token=torch.tensor([9, 5, 101, 5])),
            "node 2 of a draft has token 101; the vocabulary has 101",
        ),
        (replace(good(), token=torch.tensor([9, 5, -1, 5])), "node 2 of a draft has token -1"),
        (replace(good(), token=torch.tensor([9, 5, 5, 5])), "one parent and one token"),
        (
            with_tree(parent=torch.tensor([0, 3, 0, 0])),
            "node 1 has parent 3; a parent stands before its children",
        ),
        (with_tree(depth=torch.tensor([0, 2, 2, 3])), "depths .* are not those of its parents"),
        (
            with_tree(lines=torch.tensor([[0, 0], [1, 1], [2, 2], [2, 3]])),
            "lines are not those of its parents",
        ),
        (
            replace(good(), log_prob=torch.tensor([0.0, -1.0])),
            r"log_prob is torch.float32 \[2\]; expected",
        ),
        (
            replace(good(), log_prob=torch.tensor([0.0, -1.0, torch.nan, -3.0])),
            "log_prob holds NaN",
        ),
    ],
)
def test_a_draft_that_is_none(draft, says, tiny_model):
    decoder = Any()
    decoder.setup(tiny_model)
    with pytest.raises(ValueError, match=says):
        check_draft(draft, torch.tensor([9]), decoder)


def test_what_auto_weighs_must_be_there_and_descend(tiny_model):
    decoder = bound(tiny_model, "dynamic:nodes=auto", (1.0,) * 12)
    with pytest.raises(ValueError, match="the draft has none"):
        check_draft(replace(good(), log_prob=None), torch.tensor([9]), decoder)
    with pytest.raises(ValueError, match="must descend"):
        check_draft(
            replace(good(), log_prob=torch.tensor([0.0, -2.0, -1.0, -3.0])),
            torch.tensor([9]),
            decoder,
        )


@pytest.mark.parametrize(
    "spec",
    ["greedy", "static", "dynamic:nodes=16", "conditional:nodes=64", "conditional:heads=false"],
)
def test_our_own_drafts_are_drafts(spec, tiny_model):
    decoder = bound(tiny_model, spec)
    expected = [step.tokens for step in steps_of(tiny_model, spec)]
    from decoders.accept import Exact

    with checked(decoder):
        steps = list(decoder.decode(*turn(sum(map(len, expected)), Exact())))
    assert [step.tokens for step in steps] == expected
    assert "propose" not in vars(decoder) and "captures" not in vars(decoder)


def test_a_wrong_decoder_is_told_before_the_first_answer(plugin, model, questions, tmp_path):
    for spec, says in (
        (
            "own:how=another root",
            "decoder 'own:how=another root' cannot run on .*begins with token",
        ),
        ("own:nodes=auto", "nodes=auto weighs nodes by the log_prob"),
        ("own:how=no setup", r"cannot be set up: KeyError: 'weights' \(own_decoder.py, line 15\)"),
        ("none", "decoder 'none' cannot be loaded: AttributeError"),
    ):
        with pytest.raises(UserError, match=says):
            run(config(model, questions, "greedy", spec), tmp_path / "run", ["test"])
        assert not (tmp_path / "run" / "turns.jsonl").read_text()
    with pytest.raises(ValueError, match="expected a class under @dataclass"):
        plugin.write_text(PLUGIN.replace("@dataclass\n", ""))
        sys.modules.pop("own_decoder")
        make("own")
    assert "own" in available()


@pytest.mark.parametrize(("how", "said"), [("later", "SystemExit: 0"), ("index", "IndexError: ")])
def test_what_goes_wrong_later_is_a_failed_turn_that_says_where(
    plugin, model, questions, tmp_path, how, said
):
    folder = run(config(model, questions, f"own:how={how}", "greedy"), tmp_path / "run", ["test"])
    failed = list(folder.failures.values())
    assert failed and len(folder) > len(failed)
    assert all(each.startswith(said) and "(own_decoder.py, line " in each for each in failed)


def test_a_run_does_not_go_on_with_another_decoder_of_that_name(plugin, model, questions, tmp_path):
    asked = config(model, questions, "own")
    run(asked, tmp_path / "run", ["test"])
    turns, _ = read_turns(tmp_path / "run" / "turns.jsonl")
    run(asked, tmp_path / "run", ["test"])
    plugin.write_text(PLUGIN.replace("[5, 6, 7]", "[5, 6, 8]"))
    with pytest.raises(UserError, match=r"another configuration.*plugins"):
        run(asked, tmp_path / "run", ["test"])
    assert len(read_turns(tmp_path / "run" / "turns.jsonl")[0]) == len(turns)
    plain = config(model, questions, "greedy")
    assert plain.plugin_digests(plain.make_decoders()) == {}
    assert "plugins" in json.loads((tmp_path / "run" / "run.json").read_text())["config"]
