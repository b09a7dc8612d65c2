"""Upstream's answer commands: every flag has an effect or is refused, and files are FastChat's."""

import json
import subprocess
import sys
import types
from itertools import combinations
from pathlib import Path

import pytest
import torch

from bench.common.errors import UserError
from bench.inputs.devices import gpu_memory
from bench.inputs.identity import identity_of
from bench.store.answer_files import read_answers
from llm_judge import answer_flags, gen_model_answer
from llm_judge.judge_folder import Bench
from llm_judge.model_id import model_id
from tests.helpers.checkpoints import write_merged
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_merged(
        tmp_path_factory.mktemp("models") / "tiny-medusa", max_position_embeddings=2048
    )


@pytest.fixture
def data(tmp_path):
    """A bench "tiny" of three questions."""
    rows = [
        {
            "question_id": n,
            "category": "math" if n == 7 else "writing",
            "turns": [f"Say {n}.", "Again."],
        }
        for n in (5, 6, 7)
    ]
    path = tmp_path / "data" / "tiny" / "question.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "data"


def flags(model, data, *more):
    where = ["--model-path", str(model), "--bench-name", "tiny", "--data-dir", str(data)]
    return [*where, "--device", "cpu", "--max-new-token", "6", *more]


def answer(monkeypatch, decoder, given):
    monkeypatch.setattr(sys, "argv", ["gen_model_answer", *given])
    return gen_model_answer.main(decoder, "llm_judge.gen_model_answer", "")


def config(decoder, *given):
    parser = answer_flags.parser(decoder, "llm_judge.gen_model_answer", "")
    return answer_flags.run_config(
        decoder, parser.parse_args(["--model-path", "m", *given]), "sample"
    )


def test_three_commands_write_three_files_that_fastchat_reads(model, data, monkeypatch, capsys):
    names = {}
    for decoder in ("greedy", "static", "dynamic"):
        assert answer(monkeypatch, decoder, flags(model, data)) == 0
        printed = capsys.readouterr().out.splitlines()
        [line] = [line for line in printed if line.endswith(": 3 answers")]
        names[decoder] = Path(line.split(": ")[0])
    bench = Bench.of("tiny", data)
    assert sorted(names.values()) == sorted(bench.answers.glob("*.jsonl"))
    assert len(set(names.values())) == 3
    label = f"tiny-medusa-{identity_of(str(model))[:8]}"
    settings = "mc_sim_7b_63-temperature-0.0-max_new_tokens-6-device-cpu"
    assert names["static"].name == f"{label}-static-{settings}.jsonl"

    # FastChat's reader imports openai<1 and anthropic. It needs neither to read files.
    for name in ("openai", "anthropic"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    common = pytest.importorskip("fastchat.llm_judge.common")
    theirs = common.load_model_answers(str(bench.answers))
    asked = common.load_questions(str(bench.question_file), None, None)
    common.check_data(asked, theirs, {}, list(theirs), {})
    texts = set()
    for name, rows in theirs.items():
        for number, row in rows.items():
            assert list(row) == ["question_id", "answer_id", "model_id", "choices", "tstamp"]
            assert (row["question_id"], row["model_id"]) == (number, name)
            [choice] = row["choices"]
            assert choice["index"] == 0 and len(choice["turns"]) == 2
            assert choice["decoding_steps"] == [index + 1 for index in choice["idxs"]]
            assert sum(choice["accept_lengths"]) == sum(choice["new_tokens"]) <= 12
        texts.add(json.dumps([row["choices"][0]["turns"] for row in rows.values()]))
    assert len(texts) == 1  # At temperature 0 all three are greedy's.


def test_an_interrupted_run_goes_on_and_ranges_come_together(model, data, monkeypatch):
    given = flags(model, data, "--model-id", "label", "--nodes", "4")
    name = "label-dynamic-temperature-0.0-max_new_tokens-6-nodes-4-device-cpu"
    file = data / "tiny" / "model_answer" / f"{name}.jsonl"
    assert answer(monkeypatch, "dynamic", [*given, "--question-begin", "2"]) == 0
    assert list(read_answers(file)) == [7]
    first = ["--question-begin", "0", "--question-end", "2"]
    assert answer(monkeypatch, "dynamic", [*given, *first]) == 0
    assert list(read_answers(file)) == [5, 6, 7]
    before = file.read_bytes()

    run = data / "tiny" / "model_run" / (file.stem + "-questions-0-2") / "turns.jsonl"
    rows = run.read_text().splitlines(keepends=True)
    # As if it had been killed while it wrote the last turn.
    run.write_text("".join(rows[:3]) + rows[3][:40])
    assert answer(monkeypatch, "dynamic", [*given, "--question-end", "2"]) == 0
    assert run.read_text().splitlines(keepends=True)[:3] == rows[:3]
    after, before = (
        [json.loads(line)["choices"][0]["turns"] for line in content.splitlines()]
        for content in (file.read_bytes(), before)
    )
    assert after == before


def test_two_models_do_not_share_a_name_or_a_file(model, data, monkeypatch, tmp_path):
    given = flags(model, data, "--model-id", "label")
    assert answer(monkeypatch, "greedy", given) == 0
    other = write_merged(tmp_path / "other")
    with pytest.raises(UserError, match="another configuration"):
        answer(monkeypatch, "greedy", flags(other, data, "--model-id", "label"))
    [file] = (data / "tiny" / "model_answer").glob("*.jsonl")
    with pytest.raises(UserError, match="give another --answer-file"):
        answer(monkeypatch, "dynamic", [*given, "--answer-file", str(file)])
    for each in ("a", "b"):  # scripts/train_heads.py names what it makes like this.
        trained = write_merged(tmp_path / each / "medusa", seed=ord(each))
        assert answer(monkeypatch, "greedy", flags(trained, data)) == 0
    assert len(list((data / "tiny" / "model_answer").glob("medusa-*.jsonl"))) == 2
    plain = tmp_path / "plain.jsonl"
    assert answer(monkeypatch, "greedy", [*given, "--answer-file", str(plain)]) == 0
    assert list(read_answers(plain)) == [5, 6, 7]
    monkeypatch.chdir(tmp_path)  # Upstream fails where the name has no folder.
    assert answer(monkeypatch, "greedy", [*given, "--answer-file", "bare.jsonl"]) == 0
    assert list(read_answers(tmp_path / "bare.jsonl")) == [5, 6, 7]


def test_all_three_commands_decode_as_long():
    """Upstream's baseline stopped at 512 tokens, and the others went on to 1024."""
    assert {config(each).max_new_tokens for each in ("greedy", "static", "dynamic")} == {1024}


def test_a_failed_turn_is_not_an_answer(model, data, monkeypatch, capsys):
    """Upstream writes "ERROR" as the answer, with the numbers of the turn before."""
    path = data / "tiny" / "question.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[1]["turns"][1] = "x" * 3000  # Longer than the context.
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert answer(monkeypatch, "greedy", flags(model, data)) == 1
    assert "1 turns failed and have no answer" in capsys.readouterr().err
    [file] = (data / "tiny" / "model_answer").glob("*.jsonl")
    assert list(read_answers(file)) == [5, 7]


def test_a_script_runs_from_inside_its_folder(model, data, monkeypatch):
    def run(script, *given):
        command = [sys.executable, script, *given]
        return subprocess.run(command, cwd=ROOT / "llm_judge", capture_output=True, text=True)

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    done = run("gen_model_answer_medusa.py", *flags(model, data, "--question-end", "1"))
    assert done.returncode == 0, done.stderr
    assert len(list((data / "tiny" / "model_answer").glob("tiny-medusa-*-static-*.jsonl"))) == 1
    where = ["--bench-name", "sample", "--data-dir", str(data)]
    done = run("gen_model_answer_baseline.py", "--model-path", "m", "--fast", *where)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: --fast has no effect: the baseline drafts no")


WARM = ["--temperature", "0.7"]


@pytest.mark.parametrize(
    ("decoder", "given", "said"),
    [
        ("greedy", ["--medusa-choices", "zephyr_stage2"], "this decoder has no static tree"),
        ("dynamic", ["--medusa-choices", "zephyr_stage2"], "this decoder has no static tree"),
        ("greedy", [*WARM, "--top-p", "0.9"], "--top-p has no effect: the baseline"),
        ("static", ["--posterior-threshold", "0.1"], "at temperature 0"),
        ("static", ["--fast"], "at temperature 0"),
        ("static", [*WARM, "--top-p", "0.9"], "--sampling is typical, not nucleus"),
        (
            "static",
            [*WARM, "--sampling", "nucleus", "--fast"],
            "--sampling is nucleus, not typical",
        ),
        ("static", ["--temperature", "warm"], "expected auto, 0, or a number"),
        ("static", ["--temperature", "-1"], "expected auto, 0"),
        ("static", ["--max-new-token", "0"], "--max-new-token is 0; expected at least 1"),
        ("static", ["--top-p", "2"], "--top-p is 2.0; expected a number above 0"),
        ("static", ["--num-gpus-per-model", "4", "--num-gpus-total", "2"], "fewer than the 4"),
        ("static", ["--num-gpus-per-model", "2", "--device", "cpu"], "exclude each other"),
        ("static", ["--max-gpu-memory", "20GiB"], "needs --num-gpus-per-model"),
        ("static", ["--question-begin", "3", "--question-end", "3"], "expected more than"),
    ],
)
def test_a_flag_without_effect_is_refused(decoder, given, said):
    with pytest.raises(UserError, match=said):
        config(decoder, *given)


@pytest.mark.parametrize(
    ("flag", "value", "least"),
    [
        ("--num-gpus-per-model", "0", 1),
        ("--num-gpus-total", "0", 1),
        ("--question-begin", "-1", 0),
        ("--question-end", "0", 1),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(flag, value, least, capsys):
    with pytest.raises(SystemExit):
        config("static", flag, value)
    assert f"{flag}: '{value}' is not an integer from {least} on" in capsys.readouterr().err


def test_upstreams_own_values_may_always_be_given():
    usual = {
        "--temperature": "0.0",
        "--posterior-threshold": "0.09",
        "--posterior-alpha": "0.3",
        "--top-p": "0.8",
        "--sampling": "typical",
        "--medusa-choices": "mc_sim_7b_63",
        "--num-gpus-per-model": "1",
        "--num-gpus-total": "1",
    }
    given = [word for pair in usual.items() for word in pair]
    for decoder in ("greedy", "static", "dynamic"):
        assert config(decoder, *given) == config(decoder)


def test_what_the_flags_mean():
    assert config("static", *WARM).acceptance == "typical-sampled"
    assert config("static", *WARM, "--fast", "--posterior-alpha", "0.2").posterior_alpha == 0.2
    assert config("static", *WARM, "--fast").acceptance == "typical"
    nucleus = config("static", *WARM, "--sampling", "nucleus")
    assert (nucleus.acceptance, nucleus.top_p) == ("lossless", 0.8)
    assert config("static", "--temperature", "auto").temperature is None
    assert config("static", "--medusa-choices", "zephyr_stage2").tree == "zephyr_stage2"
    some = config("static", "--question-begin", "10", "--question-end", "30")
    assert (some.skip, some.limit) == (10, 20)
    spread = config("static", "--num-gpus-per-model", "2", "--max-gpu-memory", "20GiB")
    assert (spread.device, spread.gpus, spread.max_gpu_memory) == ("balanced", 2, "20GiB")


def test_no_two_configurations_share_a_name(tmp_path):
    trees = {"x": [[0]], "y": [[0], [1]]}
    for folder, paths in trees.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tree.json").write_text(json.dumps(paths))
    files = [str(tmp_path / folder / "tree.json") for folder in trees]
    variants = [
        ("greedy",),
        ("greedy", *WARM),
        ("static",),
        ("static", *WARM),
        ("static", *WARM, "--fast"),
        ("static", *WARM, "--fast", "--posterior-threshold", "0.1"),
        ("static", *WARM, "--posterior-alpha", "0.1"),
        ("static", *WARM, "--sampling", "nucleus"),
        ("static", *WARM, "--sampling", "nucleus", "--top-p", "0.9"),
        ("static", "--temperature", "auto"),
        ("static", "--medusa-choices", "zephyr_stage2"),
        ("static", "--medusa-choices", files[0]),
        ("static", "--medusa-choices", files[1]),
        ("static", "--max-new-token", "512"),
        ("static", "--num-choices", "2"),
        ("static", "--seed", "1"),
        ("static", "--template", "vicuna_v1.1"),
        ("static", "--dtype", "float16"),
        ("static", "--device", "cpu"),
        ("static", "--load-in-8bit"),
        ("static", "--load-in-4bit"),
        ("static", "--num-gpus-per-model", "2"),
        ("dynamic",),
        ("dynamic", "--nodes", "32"),
        ("dynamic", "--topk", "10"),
        ("dynamic", "--depth", "4"),
        ("dynamic", *WARM),
    ]
    names = {given: model_id("m", config(*given)) for given in variants}
    for one, other in combinations(variants, 2):
        assert names[one] != names[other], (one, other)
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-_.")
    assert all(set(name) <= allowed for name in names.values())


def test_the_names_are_those_of_earlier_versions():
    """A file of answers that is there already must be found again."""
    nucleus = config("static", *WARM, "--sampling", "nucleus", "--seed", "3")
    assert model_id("m", nucleus) == (
        "m-static-mc_sim_7b_63-temperature-0.7-nucleus-0.8-max_new_tokens-1024-seed-3"
    )
    typical = config("dynamic", *WARM, "--depth", "4", "--load-in-8bit")
    assert model_id("m", typical) == (
        "m-dynamic-temperature-0.7-typical-sampled-posterior_threshold-0.09-posterior_alpha-0.3"
        "-max_new_tokens-1024-depth-4-load_in_8bit"
    )


def test_the_folder_is_the_same_from_a_checkout_and_from_inside_it(tmp_path, monkeypatch):
    (tmp_path / "llm_judge").mkdir()
    monkeypatch.chdir(tmp_path)
    outside = Bench.of("mt_bench", None).folder.resolve()
    monkeypatch.chdir(tmp_path / "llm_judge")
    inside = Bench.of("mt_bench", None).folder.resolve()
    assert inside == outside == tmp_path / "llm_judge" / "data" / "mt_bench"


def test_memory_is_given_to_the_gpus_that_were_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda gpu: (100 + gpu, 1000))
    assert gpu_memory(2, "20GiB") == {0: "20GiB", 1: "20GiB"}
    assert gpu_memory(2, None) == {0: 100, 1: 101}
    assert list(gpu_memory(None, None)) == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"5 GPUs were asked for.*has 4"):
        gpu_memory(5, None)
    with pytest.raises(UserError, match="size such as 20GiB"):
        gpu_memory(2, "much")


@pytest.mark.parametrize(
    ("given", "workers"), [((), 1), (("--num-gpus-total", "5", "--num-gpus-per-model", "2"), 2)]
)
def test_gpus_beyond_those_of_one_model_take_more_workers(model, data, monkeypatch, given, workers):
    asked = []

    def run(config, out, command, workers):
        asked.append((workers, config.gpus))
        raise UserError("far enough")

    monkeypatch.setattr("bench.running.session.run", run)
    chosen = flags(model, data, *given)
    if given:  # Several GPUs a model are no one device.
        at = chosen.index("--device")
        del chosen[at : at + 2]
    with pytest.raises(UserError, match="far enough"):
        answer(monkeypatch, "dynamic", chosen)
    assert asked == [(workers, 2 if given else None)]
