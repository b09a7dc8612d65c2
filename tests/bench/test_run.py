"""The main job as its user runs it: command line in, files and one-line errors out."""

import json
import re
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch

from bench.inputs.chat import Chat
from bench.reporting.comparison import derive
from bench.running.runner import Runner
from bench.store.run_record import read_run
from bench.store.turn import Turn, read_turns
from decoders.engine.engine import Engine
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.commands import basics, bench, without_times
from tests.helpers.paths import ROOT


def test_the_whole_chain(model, questions, tmp_path, capsys):
    out = tmp_path / "run"
    decoders = "greedy,static,dynamic,dynamic:nodes=8"
    assert bench(*basics(model, questions, out), "--decoder", decoders, draws=True) == 0
    printed = capsys.readouterr().out
    assert "tokens/inference" in printed and "dynamic:nodes=8" in printed

    turns, warnings = read_turns(out / "turns.jsonl")
    assert len(turns) == 4 * 5 and not warnings
    for turn in turns:
        assert sum(turn.accept_lengths) == len(turn.token_ids) <= 24
        assert turn.temperature == {"math": 0.0, "writing": 0.7, "stem": 0.1}[turn.category]
        assert turn.prefill_s > 0 and turn.decode_s > 0
        assert len(turn.nodes) == len(turn.accept_lengths) == len(turn.step_ends)
        assert turn.step_ends == sorted(turn.step_ends) and turn.step_ends[-1] == len(turn.text)
    by_key = {turn.key: turn for turn in turns}
    for question_id, decoder, choice, number in by_key:
        greedy = by_key[question_id, "greedy", choice, number]
        assert by_key[question_id, decoder, choice, number].token_ids == greedy.token_ids
        assert by_key[question_id, decoder, choice, number].seed == greedy.seed
        assert set(greedy.accept_lengths) == {1}
    # The decoders take turns, and none is always first.
    order = [(t.question_id, t.decoder) for t in turns]
    assert next(d for q, d in order if q == 1) == "greedy"
    assert next(d for q, d in order if q == 2) == "static"

    run = json.loads((out / "run.json").read_text())
    assert run["schema_version"] == 1 and run["config"]["decoders"][0] == "greedy"
    assert run["end"] >= run["start"]
    assert run["environment"]["dtype"] == "float32"
    assert run["environment"]["torch"] == torch.__version__
    assert len(run["questions"]["sha256"]) == 64 and run["model"]["heads"] == 4

    summary = pd.read_csv(out / "summary.csv").set_index("decoder")
    assert summary.tokens_per_inference["greedy"] == 1.0 and summary.tpi_ratio["greedy"] == 1.0
    assert (summary.equal_answers == 3).all() and (summary.compared_answers == 3).all()
    figures = (
        "tokens_per_inference",
        "wall_clock_ratio",
        "accept_lengths",
        "acceptance_by_depth",
        "accept_length_along",
        "sweep_nodes",
    )
    drawn = {file.name for file in (out / "figures").iterdir()}
    assert drawn == {name + end for name in figures for end in (".png", ".svg")}


def test_answer_files_speak_all_dialects(model, questions, tmp_path):
    out = tmp_path / "run"
    given = ["--decoder", "greedy,dynamic", "--num-choices", 2]
    assert bench(*basics(model, questions, out), *given) == 0
    lines = (out / "answers" / "tiny-dynamic.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["question_id"] for row in rows] == [1, 2, 7]
    turns = {turn.key: turn for turn in read_turns(out / "turns.jsonl")[0]}
    for row in rows:
        assert row["model_id"] == "tiny-dynamic"
        assert isinstance(row["answer_id"], str) and row["tstamp"] > 0
        assert [choice["index"] for choice in row["choices"]] == [0, 1]
        for choice in row["choices"]:
            own = [
                turns[row["question_id"], "dynamic", choice["index"], n + 1]
                for n in range(len(choice["turns"]))
            ]
            assert choice["turns"] == [turn.text for turn in own]
            assert choice["idxs"] == [len(turn.accept_lengths) - 1 for turn in own]
            assert choice["new_tokens"] == [len(turn.token_ids) for turn in own]
            assert choice["decoding_steps"] == [len(turn.accept_lengths) for turn in own]
            assert sum(choice["accept_lengths"]) == sum(choice["new_tokens"])
            assert choice["wall_time"] == [turn.prefill_s + turn.decode_s for turn in own]
    # Two choices of a sampled question differ; of a temperature-0 question they cannot.
    sampled = [turns[2, "dynamic", choice, 1].token_ids for choice in (0, 1)]
    exact = [turns[1, "dynamic", choice, 1].token_ids for choice in (0, 1)]
    assert sampled[0] != sampled[1] and exact[0] == exact[1]


def test_a_second_turn_holds_the_models_own_first_answer(model, questions, tmp_path, monkeypatch):
    prompts, original = [], Chat.prompt

    def watched(self, asked, answered):
        prompts.append((list(asked), list(answered)))
        return original(self, asked, answered)

    monkeypatch.setattr(Chat, "prompt", watched)
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out), "--decoder", "greedy", "--temperature", 0) == 0
    first = next(t for t in read_turns(out / "turns.jsonl")[0] if t.key == (1, "greedy", 0, 1))
    assert (["1 + 1?", "And twice?"], [first.text]) in prompts


def test_a_finished_run_is_not_run_again(model, questions, tmp_path):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    before = (out / "turns.jsonl").read_bytes()
    assert bench(*basics(model, questions, out)) == 0
    assert (out / "turns.jsonl").read_bytes() == before


# The command line, which is killed at its fourth turn.
KILLED = """
import os, signal
from bench import run
from bench.running.runner import Runner
original, begun = Runner.answer, []
def answer(*given):
    begun.append(1)
    if len(begun) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*given)
Runner.answer = answer
run.main()
"""


def test_a_killed_run_goes_on_where_it_was(model, questions, tmp_path):
    arguments = ["--decoder", "greedy,dynamic"]
    assert bench(*basics(model, questions, tmp_path / "whole"), *arguments) == 0
    out = tmp_path / "killed"
    given = [*map(str, basics(model, questions, out)), *arguments]
    done = subprocess.run([sys.executable, "-c", KILLED, *given], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    turns = out / "turns.jsonl"
    assert turns.read_bytes().count(b"\n") == 3
    with turns.open("ab") as torn:  # What a crash within a write leaves.
        torn.write(b'{"question_id": 2, "decoder": "gre')
    assert bench(*basics(model, questions, out), *arguments) == 0
    assert without_times(turns) == without_times(tmp_path / "whole" / "turns.jsonl")


def test_interrupting_says_how_to_go_on(model, questions, tmp_path, monkeypatch, capsys):
    original, calls = Runner.answer, []

    def interrupted(self, *arguments) -> Turn:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments)

    monkeypatch.setattr(Runner, "answer", interrupted)
    assert bench(*basics(model, questions, tmp_path / "run")) == 130
    assert "every finished turn is kept. To go on: python -m bench.run" in capsys.readouterr().err
    assert len(read_turns(tmp_path / "run" / "turns.jsonl")[0]) == 2


def test_another_configuration_is_refused_with_the_difference(model, questions, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    before = (out / "turns.jsonl").read_bytes()
    assert bench(*basics(model, questions, out), "--seed", 1, "--nodes", 8) == 2
    assert "nodes: None there, 8 now; seed: 0 there, 1 now" in capsys.readouterr().err
    assert (out / "turns.jsonl").read_bytes() == before


def test_a_larger_limit_goes_on_with_further_questions(model, questions, tmp_path, capsys):
    out, whole = tmp_path / "run", tmp_path / "whole"
    rows = []
    for limit in (1, 2):
        assert bench(*basics(model, questions, out), "--limit", limit) == 0
        rows.append((out / "turns.jsonl").read_bytes())
    assert rows[1].startswith(rows[0]) and len(read_run(out).question_turns) == 2
    assert bench(*basics(model, questions, out), "--limit", 1) == 2
    assert "limit: 2 there, 1 now" in capsys.readouterr().err
    for folder in (out, whole):
        assert bench(*basics(model, questions, folder)) == 0
    grown, run = read_run(out), read_run(whole)
    assert (grown.config, grown.questions) == (run.config, run.questions)
    assert grown.question_texts == run.question_texts
    assert tokens_by_turn(out) == tokens_by_turn(whole)


def tokens_by_turn(folder) -> dict:
    return {turn.key: turn.token_ids for turn in read_turns(folder / "turns.jsonl")[0]}


def test_changed_questions_are_another_configuration(model, questions, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    with open(questions, "a") as more:
        more.write(json.dumps({"question_id": 9, "category": "math", "turns": ["?"]}) + "\n")
    assert bench(*basics(model, questions, out)) == 2
    assert "questions_sha256" in capsys.readouterr().err


def test_a_failed_turn_is_recorded_as_failed_and_retried(
    model, questions, tmp_path, monkeypatch, capsys
):
    """Predecessors wrote "ERROR" as its answer, with the steps and the time of the turn before."""
    original, calls = Engine.verify, []

    def failing(self, draft):
        calls.append(1)
        if len(calls) == 60:
            raise RuntimeError("out of luck")
        return original(self, draft)

    out = tmp_path / "run"
    monkeypatch.setattr(Engine, "verify", failing)
    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 1
    assert "1 turns failed" in capsys.readouterr().err
    turns, _ = read_turns(out / "turns.jsonl")
    failed = [turn for turn in turns if turn.failed]
    assert len(failed) == 1 and failed[0].error == "RuntimeError: out of luck"
    assert failed[0].token_ids == failed[0].accept_lengths == []
    assert (failed[0].decode_s, failed[0].text) == (0.0, "")
    answers = (out / "answers" / "tiny-greedy.jsonl").read_text()
    assert "ERROR" not in answers and f'"question_id": {failed[0].question_id}' not in answers

    assert bench(*basics(model, questions, out), "--decoder", "greedy") == 0
    turns, _ = read_turns(out / "turns.jsonl")
    assert len(turns) == 5 and not any(turn.failed for turn in turns)


def test_the_context_ends_a_turn_and_a_prompt_that_does_not_fit_fails_alone(model, tmp_path):
    file = tmp_path / "long.jsonl"
    rows = [
        {"question_id": 1, "category": "math", "turns": ["x" * 135]},
        {"question_id": 2, "category": "math", "turns": ["x" * 500]},
        {"question_id": 3, "category": "math", "turns": ["short"]},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--decoder", "greedy,dynamic", "--max-new-tokens", 1024]
    assert bench(*basics(model, file, tmp_path / "run"), *given) == 1
    turns = {turn.key: turn for turn in read_turns(tmp_path / "run" / "turns.jsonl")[0]}
    for decoder in ("greedy", "dynamic"):
        near, over, short = (turns[q, decoder, 0, 1] for q in (1, 2, 3))
        assert near.finish_reason in ("context", "eos")
        assert near.prompt_tokens + len(near.token_ids) <= 160
        assert over.finish_reason == "error" and "the model's context is 160" in over.error
        assert not short.failed
        assert near.token_ids == turns[1, "greedy", 0, 1].token_ids


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--decoder", "dinamic"], "Did you mean 'dynamic'"),
        (["--decoder", "greedy,greedy"], "different names"),
        (["--decoder", ","], "one or more"),
        (["--questions", "nowhere.jsonl"], "no questions at 'nowhere.jsonl'"),
        (["--model", "./nowhere"], "model folder './nowhere' does not exist"),
        (["--model", "{tmp}"], "expected 'demo', a folder with config.json"),
        (["--nodes", "0"], "nodes is 0"),
        (["--topk", "-1"], "topk is -1"),
        (["--nodes", "8", "--decoder", "greedy"], "--nodes has no effect on greedy"),
        (["--temperature", "-0.1"], "--temperature is -0.1"),
        (["--temperature", "nan"], "--temperature is nan"),
        (["--temperature", "inf"], "--temperature is inf"),
        (["--temperature", "1e-40"], "expected auto, 0, or a number from 0.001 on"),
        (["--temperature", "0", "--top-p", "0.5"], "have no effect at temperature 0"),
        (
            ["--posterior-threshold", "nan", "--acceptance", "typical"],
            "--posterior-threshold is nan; expected a number above 0 and at most 1",
        ),
        (
            ["--nodes", "8", "--decoder", "dynamic:nodes=16"],
            "--nodes has no effect on dynamic:nodes=16",
        ),
        (["--decoder", "dynamic:nodes=16:nodes=8"], "option nodes stands twice"),
        (["--nodes", "99999999999999999999"], "at most 4096"),
        (
            ["--decoder", "static:tree={tmp}/tree.json,static:tree={tmp}-tree.json"],
            "would share an answer file",
        ),
        (["--temperature", "warm"], "--temperature is 'warm'"),
        (["--acceptance", "hopeful"], "--acceptance is 'hopeful'"),
        (["--top-p", "0"], "--top-p is 0.0"),
        (["--top-p", "0.9", "--acceptance", "typical"], "--top-p has no effect"),
        (
            ["--acceptance", "typical", "--decoder", "greedy,hf-greedy"],
            "--acceptance typical has no effect on greedy, hf-greedy",
        ),
        (["--posterior-alpha", "0.5"], "no effect on lossless"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0"),
        (["--num-choices", "0"], "--num-choices is 0"),
        (["--limit", "0"], "--limit is 0"),
        (["--template", "vicuna_v1"], "did you mean vicuna_v1.1"),
        (["--decoder", "static", "--tree", "mc_sim"], "neither a published tree nor a file"),
        (
            ["--decoder", "static", "--tree", "{tmp}/tree.json"],
            "tree.json: not a tree: [0, 1] has no parent",
        ),
        (["--load-in-8bit"], "need a CUDA GPU"),
        (["--out", "{tmp}/tree.json"], "exists and is not a run's folder"),
    ],
)
def test_bad_input_is_one_line_before_any_model_is_loaded(
    arguments, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("bench.running.runner.load", lambda *a: pytest.fail("a model was loaded"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tree.json").write_text("[[0]]" if "share" in says else "[[0, 1]]")
    tmp_path.with_name(tmp_path.name + "-tree.json").write_text("[[0]]")
    assert bench(*(argument.format(tmp=tmp_path) for argument in arguments)) == 2
    error = capsys.readouterr().err
    assert says in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(capsys):
    assert bench("--device", "cuda") == 2
    assert "this machine has no accelerator; use --device cpu" in capsys.readouterr().err


def test_heads_that_are_not_there(questions, tmp_path, capsys):
    given = basics(write_base(tmp_path / "plain"), questions, tmp_path / "run")
    assert bench(*given, "--decoder", "dynamic") == 2
    said = capsys.readouterr().err
    assert (
        "no Medusa heads; use a decoder that needs none, such as greedy, suffix or conditional"
        in said
    )
    assert not (tmp_path / "run").exists()  # Nothing was answered.
    assert bench(*given, "--decoder", "greedy") == 0


def test_typical_acceptance_is_not_compared_as_if_it_were_lossless(
    model, questions, tmp_path, capsys
):
    out = tmp_path / "run"
    arguments = ["--decoder", "greedy,dynamic", "--acceptance", "typical", "--temperature", 0.9]
    assert bench(*basics(model, questions, out), *arguments) == 0
    assert "differs from greedy" not in capsys.readouterr().err


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_a_difference_is_printed_with_its_gap(
    model, questions, tmp_path, monkeypatch, capsys, temperature
):
    """Half precision may make one at a near-tie. Here the verified logits are disturbed instead.

    Greedy's token has the highest score, so it is named first.
    """
    original = Engine.verify

    def disturbed(self, draft):
        rows = original(self, draft)
        # Smaller trees are those that a model is tried with when it is loaded.
        if len(draft.tree) > 8 and self.length > 60:
            rows.logits[:, 50] += 100
        return rows

    monkeypatch.setattr(Engine, "verify", disturbed)
    given = "--decoder", "greedy,dynamic", "--temperature", temperature
    assert bench(*basics(model, questions, tmp_path / "run"), *given) == 0
    found = re.findall(
        r"differs from greedy: dynamic, question \d+, turn \d, token \d+: \[50\] for \[(\d+)\]; "
        r"(.*) \[(\d+), \d+\], gap (\S+)\n",
        capsys.readouterr().err,
    )
    assert found
    recorded = json.loads((tmp_path / "run" / "run.json").read_text())["differences"]
    assert [(str(each["theirs"]), f"{each['gap']:.3g}") for each in recorded] == [
        (greedy, gap) for greedy, _, _, gap in found
    ]
    assert {(each["decoder"], each["ours"]) for each in recorded} == {("dynamic", 50)}
    for greedy, what, highest, gap in found:
        assert greedy == highest and float(gap) > 0
        assert what == ("likeliest" if temperature == 0 else "highest with the sample's noise")


def test_a_run_that_cannot_start_leaves_a_finished_one_as_it_was(
    model, questions, tmp_path, capsys
):
    """Resuming with a broken model used to rewrite run.json before anything was checked."""
    own = tmp_path / "model"
    shutil.copytree(model, own)
    given = [*basics(own, questions, tmp_path / "run"), "--decoder", "static"]
    out = tmp_path / "run"
    assert bench(*given) == 0
    before = (out / "run.json").read_bytes()
    (own / "medusa_tree.json").write_text("{}")
    assert bench(*given) == 2
    assert "medusa_tree.json: not a tree" in capsys.readouterr().err
    assert (out / "run.json").read_bytes() == before


def test_rerunning_a_finished_run_does_not_change_where_it_came_from(model, questions, tmp_path):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    run = json.loads((out / "run.json").read_text())
    run["environment"]["device"], run["git"]["commit"] = "another machine", "another commit"
    (out / "run.json").write_text(json.dumps(run))
    assert bench(*basics(model, questions, out)) == 0
    assert json.loads((out / "run.json").read_text()) == run


def test_resuming_elsewhere_is_recorded_and_said(model, questions, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    run = json.loads((out / "run.json").read_text())
    run["environment"]["device"] = "another machine"
    (out / "run.json").write_text(json.dumps(run))
    rows = (out / "turns.jsonl").read_text().splitlines(keepends=True)
    (out / "turns.jsonl").write_text("".join(rows[:2]))
    assert bench(*basics(model, questions, out)) == 0
    assert "begun elsewhere (device: 'another machine' there" in capsys.readouterr().err
    run = json.loads((out / "run.json").read_text())
    assert len(run["sessions"]) == 2 and run["environment"]["device"] == "another machine"


@pytest.mark.parametrize("what", ["the tree file", "the model's own tree", "the weights"])
def test_what_lies_behind_a_name_may_not_change(what, model, questions, tmp_path, capsys):
    own, tree, out = tmp_path / "model", tmp_path / "tree.json", tmp_path / "run"
    shutil.copytree(model, own)
    tree.write_text("[[0], [1]]")
    (own / "medusa_tree.json").write_text("[[0], [1]]")
    named = ["--tree", tree] if what == "the tree file" else []
    assert bench(*basics(own, questions, out), "--decoder", "static", *named) == 0
    if what == "the weights":
        write_merged(own, hidden_act="relu")
        weights = (own / "model.safetensors").read_bytes()
        (own / "model.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    else:
        (tree if named else own / "medusa_tree.json").write_text("[[0], [1], [0, 0]]")
    assert bench(*basics(own, questions, out), "--decoder", "static", *named) == 2
    assert f"a run of another {'configuration' if named else 'model'}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda row: row.pop("prefill_s"), "it has no 'prefill_s'"),
        (lambda row: row.update(text=None), "text is None, expected a valid string"),
        (lambda row: row.update(question_id="1"), "question_id must be an integer, found '1'"),
        (lambda row: row.update(token_ids="aaaa"), "token_ids is 'aaaa'"),
        (lambda row: row.update(decode_s="x"), "decode_s is 'x'"),
        (lambda row: row.update(accept_lengths=[1]), "do not add up"),
        (lambda row: row.update(step_ends=[1]), "step_ends are not one for each step"),
        (lambda row: row.update(turn=3), "turns that this run does not have"),
        (lambda row: row.update(question_id=777), "turns that this run does not have"),
    ],
)
def test_rows_that_are_not_this_runs_are_never_erased(
    damage, says, model, questions, tmp_path, capsys
):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    rows = [json.loads(line) for line in (out / "turns.jsonl").read_text().splitlines()]
    damage(rows[1])
    (out / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = (out / "turns.jsonl").read_bytes()
    assert bench(*basics(model, questions, out)) == 2
    assert says in capsys.readouterr().err
    assert (out / "turns.jsonl").read_bytes() == before


def test_rows_from_before_step_ends_are_read(model, questions, tmp_path):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out)) == 0
    rows = [json.loads(line) for line in (out / "turns.jsonl").read_text().splitlines()]
    for row in rows:
        del row["step_ends"]
    (out / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    turns, _ = read_turns(out / "turns.jsonl")
    assert len(turns) == 5 and all(turn.step_ends == [] for turn in turns)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"schema_version": 1}', '{"schema_version": 1, "config": null}']
)
def test_a_damaged_run_json_is_one_line(content, model, questions, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(content)
    assert bench(*basics(model, questions, tmp_path / "run")) == 2
    assert "run.json is damaged" in capsys.readouterr().err
    (tmp_path / "run" / "run.json").write_text('{"schema_version": 99}')
    assert bench(*basics(model, questions, tmp_path / "run")) == 2
    assert "has schema version 99; this version reads 1" in capsys.readouterr().err


def test_a_report_says_what_is_missing(model, questions, tmp_path, capsys):
    out = tmp_path / "run"
    assert bench(*basics(model, questions, out), "--decoder", "greedy,dynamic") == 0
    rows = (out / "turns.jsonl").read_text().splitlines(keepends=True)
    (out / "turns.jsonl").write_text("".join(rows[:-1]))
    capsys.readouterr()
    report = derive(out)
    assert "run: dynamic: 4 of 5 turns are finished" in capsys.readouterr().err
    assert report.summary.set_index("decoder").compared_answers["dynamic"] == 2


def test_dollars_and_brackets_in_names_are_text(model, tmp_path):
    file = tmp_path / "odd.jsonl"
    question = {"question_id": 1, "category": "$\\frac$ [/b]", "turns": ["x"]}
    file.write_text(json.dumps(question) + "\n")
    assert bench(*basics(model, file, tmp_path / "run [/b]"), draws=True) == 0


def test_a_shared_flag_that_is_about_some_decoders_is_said_so(model, questions, tmp_path, capsys):
    given = basics(model, questions, tmp_path / "run")
    decoders = "greedy,static,dynamic,conditional:topk=4"
    assert bench(*given, "--decoder", decoders, "--topk", 8, "--limit", 1) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "note: --topk 8 has no effect on static, which lacks this option"


def test_the_tokenizers_own_template_is_one_configuration_by_name_and_by_default(
    model, questions, tmp_path
):
    given = basics(model, questions, tmp_path / "run")
    assert bench(*given, "--limit", 1) == 0
    assert bench(*given, "--limit", 1, "--template", "chat") == 0


def test_more_questions_than_run_json_can_hold_are_refused(model, questions, tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.running.session.LONGEST", (1 << 20) + 100)
        patch.setattr("bench.running.runner.load", lambda *a: pytest.fail("a model was loaded"))
        assert bench(*basics(model, questions, tmp_path / "run")) == 2
    assert "the 3 questions hold 0 MiB; one run asks at most" in capsys.readouterr().err


def test_the_last_lines_say_how_to_get_a_ratio(model, questions, tmp_path, capsys):
    assert bench(*basics(model, questions, tmp_path / "run"), "--limit", 1) == 0
    printed = capsys.readouterr().out
    assert "No ratio: greedy did not run. Add it to compare: --decoder greedy,dynamic" in printed
    assert "threads: 1 (OMP_NUM_THREADS sets another number)" in printed
