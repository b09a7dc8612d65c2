"""Runs with a decoder of another package: what is said where it is wrong."""

import json
import sys

import pytest
import torch

from bench.common.errors import UserError
from bench.inputs.loader import load
from bench.running.config import RunConfig
from bench.running.decoders import bind, make_decoder, make_decoders
from bench.running.digests import file_digests, plugin_digests
from bench.running.session import run
from bench.running.step_times import AutoTimes
from bench.store.turn import read_turns
from decoders import registry
from decoders.budget import LADDER, StepTimes
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import basics, bench
from tests.helpers.plugins import install, write_entry_points
from tests.helpers.steps import FREE

PLUGIN = """
from dataclasses import dataclass
from pathlib import Path
import torch
from decoders.decoder import Decoder
from decoders.tree import Draft, Tree

@dataclass
class Own(Decoder):
    how: str = "well"
    nodes: int | str = 4
    weights: Path | None = None
    guess: str = "234"
    asked = 0

    def setup(self, model):
        if self.how == "no setup":
            raise KeyError("weights")
        if self.how == "dtype":
            torch.set_default_dtype(torch.float64)
        if self.how == "weights":
            self.halve(model)
        if self.how == "tokenizer":
            model.tokenizer.add_tokens(["further"])
        if self.how == "hook":
            model.lm.model.layers[0].register_forward_hook(lambda *_: None)
        self.tree = Tree.from_parent([0, 0, 0, 1])
        ids = model.tokenizer(self.guess, add_special_tokens=False).input_ids
        self.guesses = torch.tensor(ids)
        super().setup(model)

    def halve(self, model):
        with torch.no_grad():
            model.lm.model.layers[0].mlp.down_proj.weight.mul_(0.5)

    @property
    def max_depth(self):
        return 2

    def propose(self, root, hidden_state):
        self.asked += 1
        token = torch.cat((root, self.guesses))
        if self.how == "weights later" and self.asked == 40:
            self.halve(self.model)
        if self.how == "later" and self.asked > 40:
            raise SystemExit(0)
        if self.how == "index" and self.asked > 40:
            return token[100]
        if self.how == "panic" and self.asked > 40:
            raise BaseException("\\x1b[2J")
        is_wrong = self.how == "another root" or (self.how == "later root" and self.asked > 3)
        return Draft(self.tree, token + is_wrong)
"""


@pytest.fixture(autouse=True)
def steps_of_a_quiet_machine(monkeypatch):
    """Measured times would decide how many nodes may be drafted, whatever a decoder does wrong."""
    times = AutoTimes(StepTimes((0,), LADDER, (FREE,)))
    monkeypatch.setattr("bench.running.runner.measured_times", lambda model: times)
    yield
    torch.set_default_dtype(torch.float32)


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
        ("own:how=later root", "cannot run on .*begins with token"),  # Not in its first drafts.
        ("own:nodes=auto", "nodes=auto weighs nodes by the log_prob"),
        ("own:how=no setup", r"cannot be set up: KeyError: 'weights' \(own_decoder.py, line 18\)"),
        ("none", "decoder 'none' cannot be loaded: AttributeError"),
        ("own:how=dtype", "'own:how=dtype', while it was set up, .*: torch's default dtype is"),
        ("own:how=weights", "'own:how=weights', while it was set up, .*: the model's logits after"),
        ("own:how=tokenizer", "'own:how=tokenizer', while it was set up, .*: the tokenizer"),
    ],
)
def test_a_wrong_decoder_is_told_before_the_first_answer(
    plugin, model, questions, tmp_path, spec, says
):
    turns = tmp_path / "run" / "turns.jsonl"
    with pytest.raises(UserError, match=says):
        run(config(model, questions, "greedy", spec), tmp_path / "run", ["test"])
    assert not turns.exists() or not turns.read_text()


def test_a_decoder_has_the_models_tokenizer(plugin, model):
    loaded = load(model, device="cpu")
    decoder = bind("own", make_decoder("own:guess=abc"), loaded)
    drafted = decoder.propose(torch.tensor([5]), torch.zeros(1, loaded.model.hidden))
    assert loaded.tokenizer.decode(drafted.token[1:]) == "abc"


def test_a_decoder_is_a_dataclass(plugin):
    assert "own" in registry.names()
    plugin.write_text(PLUGIN.replace("@dataclass\n", ""))
    with pytest.raises(ValueError, match="expected a class under @dataclass"):
        make_decoder("own")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("later", "SystemExit: 0"),
        ("index", "IndexError: "),
        ("panic", "BaseException: \\x1b[2J"),
    ],
)
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
    plugin.write_text(PLUGIN.replace('"234"', '"235"'))
    with pytest.raises(UserError, match=r"another configuration.*plugins"):
        run(asked, out, ["test"])
    assert len(read_turns(out / "turns.jsonl")[0]) == len(turns)
    assert plugin_digests(make_decoders(config(model, questions, "greedy"))) == {}
    assert "plugins" in json.loads((out / "run.json").read_text())["config"]


def test_a_decoder_that_changes_the_model_later_ends_the_run(plugin, tmp_path, questions):
    """Greedy's answers would change with it, and "equal" would mean nothing."""
    model = write_merged(tmp_path / "model")
    asked = config(model, questions, "greedy", "own:how=weights later")
    with pytest.raises(UserError, match="one of own:how=weights later has changed what all"):
        run(asked, tmp_path / "run", ["test"])
    kept, _ = read_turns(tmp_path / "run" / "turns.jsonl")
    alone = run(config(model, questions, "greedy"), tmp_path / "alone", ["test"])
    greedy = [turn for turn in kept if turn.decoder == "greedy"]
    assert greedy and all(turn.token_ids == alone.turn(turn.key).token_ids for turn in greedy)


def test_functions_in_the_models_layers_are_said(plugin, tmp_path, questions, capsys):
    model = write_merged(tmp_path / "model")
    run(config(model, questions, "greedy", "own:how=hook"), tmp_path / "run", ["test"])
    assert "'own:how=hook' has put 1 functions into the model's layers" in capsys.readouterr().err


def test_a_package_is_announced_before_it_is_imported(plugin, model, questions, tmp_path, capsys):
    """It may do anything, such as end the process without a word."""
    plugin.write_text("raise SystemExit(0)")
    with pytest.raises(UserError, match="decoder 'own' cannot be loaded: SystemExit: 0"):
        run(config(model, questions, "own"), tmp_path / "run", ["test"])
    assert capsys.readouterr().err == "note: decoder 'own' is of own_decoder 1.0\n"


def test_a_setting_that_an_import_changes_is_told(plugin):
    """What came before the first look was taken for the machine's own."""
    plugin.write_text("import torch\ntorch.set_default_dtype(torch.float64)\n" + PLUGIN)
    says = "'own', while it was imported, .*: torch's default dtype is torch.float64, and was"
    with pytest.raises(UserError, match=says):
        make_decoder("own")


def test_a_package_with_a_name_of_ours_is_told_that_it_is_not_used(plugin, capsys):
    write_entry_points(plugin.parent, "own_decoder", {"dynamic": "Own"})
    assert type(make_decoder("dynamic")).__name__ == "Dynamic"
    said = capsys.readouterr().err
    assert "own_decoder 1.0 brings a decoder named 'dynamic', which is a name of ours" in said
    make_decoder("static")
    assert capsys.readouterr().err == ""


def test_the_files_behind_a_decoder_are_in_the_digest(plugin, model, questions, tmp_path):
    """Its helper modules, and the weights that an option names; not those of other packages."""
    helper = plugin.with_name("own_helper.py")
    helper.write_text("NUMBER = 1\n\ndef shift():\n    return 0\n")
    plugin.write_text("import json\nfrom own_helper import shift\n" + PLUGIN)
    weights = tmp_path / "weights.bin"
    folder = tmp_path / "draft"
    folder.mkdir()

    def digests(spec: str) -> tuple[dict, dict]:
        made = make_decoders(config(model, questions, spec))
        return plugin_digests(made), file_digests(made)

    try:
        code, files = digests(f"own:weights={weights}")
        assert len(code) == 1 and files == {}
        helper.write_text("NUMBER = 1\n\ndef shift():\n    return 1\n")
        assert digests(f"own:weights={weights}")[0] != code
        weights.write_bytes(b"1")
        first = digests(f"own:weights={weights}")[1]
        weights.write_bytes(b"2")
        assert first and digests(f"own:weights={weights}")[1] != first
        empty = digests(f"own:weights={folder}")[1]
        (folder / "model.safetensors").write_bytes(b"1")
        assert empty and digests(f"own:weights={folder}")[1] != empty
    finally:
        sys.modules.pop("own_helper", None)


@pytest.mark.parametrize(
    "imports",
    [
        "from own_table import TABLE\n",  # A list has no module.
        "from own_table import cached\n",  # Neither has a cached function, here.
        "def later():\n    import own_table\n",  # Imported only when it is called.
    ],
)
@pytest.mark.parametrize("file", ["own_table.py", "own_table/__init__.py", "own_table/sub.py"])
def test_what_only_the_source_imports_is_in_the_digest(plugin, model, questions, imports, file):
    helper = plugin.parent / file
    helper.parent.mkdir(exist_ok=True)
    if file.endswith("sub.py"):
        (helper.parent / "__init__.py").write_text("TABLE, cached = [1], dict")
        imports = imports.replace("import own_table", "import own_table.sub")
    text = "from functools import lru_cache\nTABLE = [1]\n@lru_cache\ndef cached(): return {}\n"
    plugin.write_text(imports + PLUGIN)

    def digest() -> str:
        (found,) = plugin_digests(make_decoders(config(model, questions, "own"))).values()
        return found

    try:
        helper.write_text(text.format(1))
        first = digest()
        assert digest() == first
        helper.write_text(text.format(2))
        assert digest() != first
    finally:
        sys.modules.pop("own_table", None)


def test_weights_inside_the_package_are_in_the_digest(plugin, model, questions):
    """Only its Python files were."""
    plugin.unlink()
    package = plugin.with_suffix("")
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN)

    def digest() -> str:
        (found,) = plugin_digests(make_decoders(config(model, questions, "own"))).values()
        return found

    (package / "table.bin").write_bytes(b"1")
    first = digest()
    (package / "__pycache__" / "other.pyc").write_bytes(b"1")
    assert digest() == first
    (package / "table.bin").write_bytes(b"2")
    assert digest() != first


def test_a_label_is_the_name_everywhere(plugin, model, questions, tmp_path, capsys):
    out, weights = tmp_path / "run", tmp_path / "weights.bin"
    weights.write_bytes(b"1")
    given = [*basics(model, questions, out), "--decoder", f"base=greedy,mine=own:weights={weights}"]
    assert bench(*given) == 0
    printed = capsys.readouterr().out
    assert "mine" in printed and str(weights) not in printed and "to base" in printed
    assert {turn.decoder for turn in read_turns(out / "turns.jsonl")[0]} == {"base", "mine"}
    answers = sorted(path.name for path in (out / "answers").iterdir())
    assert answers == ["tiny-base.jsonl", "tiny-mine.jsonl"]
    assert bench(*given) == 0  # Nothing is left to do.
    weights.write_bytes(b"2")
    assert bench(*given) == 2
    assert "files: {'mine': {'weights': " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("decoders", "says"),
    [
        ("greedy=dynamic", "the label 'greedy' is the name of a decoder"),
        ("a=dynamic,a=static", "must be one or more different names"),
        ("a=b=dynamic", "the label 'a=b' must be"),
    ],
)
def test_a_label_that_misleads_is_refused(decoders, says, capsys):
    assert bench("--decoder", decoders) == 2
    assert says in capsys.readouterr().err
