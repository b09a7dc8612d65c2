"""Models that draft: found by name, loaded beside the base model, with the same tokens."""

import json
import re
import sys

import pytest
from transformers import dynamic_module_utils

from bench.store.turn import read_turns
from tests.helpers.checkpoints import write_base
from tests.helpers.commands import basics, bench
from tests.helpers.models import tiny_tokenizer

SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)


@pytest.fixture
def small(tmp_path):
    return write_base(tmp_path / "small", seed=5, **SMALL)


def answers(out, spec: str) -> list[list[int]]:
    turns, _ = read_turns(out / "turns.jsonl")
    return [turn.token_ids for turn in turns if turn.decoder == spec]


def test_a_run_with_a_draft_model(model, questions, small, tmp_path):
    tree, chain = f"draft:model={small}", f"draft:model={small}:topk=1"
    out = tmp_path / "run"
    arguments = (*basics(model, questions, out), "--temperature", "0.7")
    assert bench(*arguments, "--decoder", f"greedy,{tree},{chain}") == 0
    assert answers(out, tree) == answers(out, chain) == answers(out, "greedy")
    digests = json.loads((out / "run.json").read_text())["config"]["files"]
    assert set(digests) == {tree, chain}


def test_another_draft_model_of_that_name_is_another_run(model, questions, small, tmp_path, capsys):
    arguments = (*basics(model, questions, tmp_path / "run"), "--decoder", f"draft:model={small}")
    assert bench(*arguments) == 0
    assert bench(*arguments) == 0
    write_base(small, seed=6, **SMALL)
    assert bench(*arguments) == 2
    assert "another configuration (files: " in capsys.readouterr().err


def other_tokens(folder) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def more_tokens(folder) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["further"])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_tokens, "the vocabulary of .*small' is another one: its token 68 is 'b', not 'a'"),
        (lambda folder: write_base(folder, vocab_size=99), "has a vocabulary of 99 tokens, and "),
        (lambda folder: (folder / "config.json").unlink(), "no model at .*small'"),
        (lambda folder: (folder / "model.safetensors").unlink(), "small' has no weights"),
    ],
)
def test_what_cannot_draft_is_told_before_the_first_answer(
    model, questions, small, tmp_path, capsys, change, says
):
    change(small)
    arguments = (*basics(model, questions, tmp_path / "run"), "--decoder", f"draft:model={small}")
    assert bench(*arguments) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert re.search(says, line)


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM

class Config(LlamaConfig):
    model_type = "with-code"

class Model(LlamaForCausalLM):
    config_class = Config
"""


@pytest.fixture
def with_code(small, tmp_path, monkeypatch):
    """A draft model whose class is in a Python file of its own."""
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    config = json.loads((small / "config.json").read_text())
    classes = {"AutoConfig": "own_code.Config", "AutoModelForCausalLM": "own_code.Model"}
    config |= {"model_type": "with-code", "architectures": ["Model"], "auto_map": classes}
    (small / "config.json").write_text(json.dumps(config))
    (small / "own_code.py").write_text(CODE)
    return small


@pytest.mark.parametrize("is_trusted", [False, True])
def test_code_of_a_draft_model_runs_where_that_of_the_model_may(
    model, questions, with_code, tmp_path, capsys, is_trusted
):
    arguments = basics(model, questions, tmp_path / "run")
    if is_trusted:
        arguments.append("--trust-remote-code")
    spec = f"draft:model={with_code}"
    status = bench(*arguments, "--decoder", f"greedy,{spec}", "--temperature", "0")
    if is_trusted:
        assert status == 0
        assert answers(tmp_path / "run", spec) == answers(tmp_path / "run", "greedy")
    else:
        assert status == 2
        said = capsys.readouterr().err
        assert "small' brings Python code of its own" in said and "--trust-remote-code" in said


def test_a_folder_that_is_not_there_is_told_before_anything_is_loaded(
    model, questions, tmp_path, capsys
):
    arguments = basics(model, questions, tmp_path / "run")
    assert bench(*arguments, "--decoder", "draft:model=./none") == 2
    assert "model folder './none' does not exist" in capsys.readouterr().err


def test_further_tokens_of_one_tokenizer_do_not_matter(model, questions, small, tmp_path):
    more_tokens(small)
    arguments = basics(model, questions, tmp_path / "run")
    assert bench(*arguments, "--decoder", f"draft:model={small}") == 0
