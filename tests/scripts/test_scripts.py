"""The training and searching tools, on a tiny model."""

import doctest
import gzip
import json
import math
import sys
from collections import Counter

import calibrate
import draft_vocabulary
import perplexity
import pytest
import search_tree
import sweep
import torch
import train_demo
import unlearn_loops

import train_heads
from bench.common.errors import UserError
from bench.inputs.loader import Loaded, load
from bench.inputs.questions import load_questions
from decoders.accept import Exact
from decoders.conditional.calibration import Calibration, read_calibration
from decoders.conditional.decoder import Conditional
from decoders.loop import Stop
from decoders.model.model import Model
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.commands import script
from tests.helpers.models import tiny_heads, tiny_llama


@pytest.fixture
def corpus(tmp_path):
    """Enough text for a tokenizer and a few steps: the sample questions, with themselves as answers."""
    file = tmp_path / "chat.jsonl.gz"
    with gzip.open(file, "wt") as out:
        for _ in range(4):
            for question in load_questions("sample").questions:
                turns = [
                    {"role": r, "content": t} for t in question.turns for r in ("user", "assistant")
                ]
                out.write(json.dumps({"source": "sample", "turns": turns}) + "\n")
    return file


def test_train_demo_makes_a_model_that_loads_and_resumes(corpus, tmp_path, capsys):
    arguments = [
        "--corpus", corpus, "--heldout", corpus, "--out", tmp_path / "demo", "--vocab", 300, "--layers", 1, "--hidden", 32,
        "--context", 64, "--seq", 32, "--batch-tokens", 256, "--no-compile", "--device", "cpu",
    ]  # fmt: skip
    assert script(train_demo.main, *arguments, "--tokens", 1024) == 0
    first = json.loads((tmp_path / "demo" / "base_result.json").read_text())
    assert first["tokens"] == 1024
    assert script(train_demo.main, *arguments, "--tokens", 40_000) == 0
    second = json.loads((tmp_path / "demo" / "base_result.json").read_text())
    assert second["tokens"] >= 40_000 and second["heldout_loss_nats"] < first["heldout_loss_nats"]
    loaded = load(str(tmp_path / "demo" / "base"), device="cpu")
    text = "def f(x):\n    return 2 ** x  # 😀"
    assert loaded.tokenizer.decode(loaded.tokenizer(text).input_ids) == text
    assert loaded.model.context == 64


@pytest.fixture
def short_corpus(tmp_path):
    """Prompts that a context of 160 characters holds."""
    file = tmp_path / "short.jsonl"
    with file.open("w") as out:
        for letter in "abcdefgh":
            turns = [{"role": role, "content": letter * 5} for role in ("user", "assistant")]
            out.write(json.dumps({"turns": turns}) + "\n")
    return file


@pytest.mark.parametrize("layout", ["medusa", "merged"])
def test_train_heads_learns_and_its_folder_loads(short_corpus, tmp_path, layout):
    base = write_base(tmp_path / "base")
    merge = ["--merge"] if layout == "merged" else []
    arguments = [
        "--model", base, "--corpus", short_corpus, "--out", tmp_path / "out", "--heads", 3, "--max-length", 150, "--distill", 8,
        "--distill-tokens", 20, "--distill-batch", 4, "--batch-tokens", 512, "--save-dtype", "float32", "--device", "cpu",
        "--temperatures", "0", "--lr", "0.02",
    ]  # fmt: skip
    assert script(train_heads.main, *arguments, "--tokens", 4000, *merge) == 0
    loaded = load(str(tmp_path / "out" / layout), device="cpu")
    assert loaded.model.num_heads == 3
    answers = [
        tuple(json.loads(line))
        for line in next((tmp_path / "out").glob("own_answers-*.jsonl")).read_text().splitlines()
    ]
    assert len(answers) == 8
    # The base is frozen; the heads know its own answers better than untrained ones do.
    before = load(str(base), device="cpu").model.lm.state_dict()
    assert all(
        torch.equal(tensor, before[name]) for name, tensor in loaded.model.lm.state_dict().items()
    )
    fresh = train_heads.MedusaHeads(3, 32, 101)
    fresh.out_weight.data.copy_(
        loaded.model.lm.get_output_embeddings().weight.expand_as(fresh.out_weight)
    )
    with torch.no_grad():
        trained = train_heads.heads_loss(loaded, loaded.model.heads, answers)
        untrained = train_heads.heads_loss(loaded, fresh, answers)
    assert (trained < untrained - 0.2).all()


def test_heads_learn_the_token_two_places_on(tmp_path):
    """Head 0 of a row guesses what follows the root that the row itself predicts."""
    loaded = load(str(write_base(tmp_path)), device="cpu")
    ids = [1, 5, 6, 7, 8, 2]
    hidden = loaded.model.hidden_rows(torch.tensor([ids]))[0]
    heads = train_heads.MedusaHeads(2, 32, 101)
    heads.out_weight.data.normal_(generator=torch.Generator().manual_seed(0))
    loss = train_heads.heads_loss(loaded, heads, [(ids, 2)])
    logits = heads(hidden)
    # Rows 1..4 precede the roots 6, 7, 8, 2 of the answer; head 0 has targets behind the first three, head 1 two.
    expected = [
        torch.nn.functional.cross_entropy(logits[0, 1:4], torch.tensor([7, 8, 2])),
        torch.nn.functional.cross_entropy(logits[1, 1:3], torch.tensor([8, 2])),
    ]
    torch.testing.assert_close(loss, torch.stack(expected))


def test_search_tree_measures_ranks_and_writes_a_tree(short_corpus, tmp_path, capsys):
    write_merged(tmp_path / "m")
    arguments = [
        "--model",
        tmp_path / "m",
        "--corpus",
        short_corpus,
        "--out",
        tmp_path / "m",
        "--device",
        "cpu",
    ]
    assert (
        script(
            search_tree.main,
            *arguments,
            "--prompts",
            8,
            "--new-tokens",
            40,
            "--batch",
            4,
            "--nodes",
            16,
        )
        == 0
    )
    assert "top-1 by head" in capsys.readouterr().out
    tree = json.loads((tmp_path / "m" / "medusa_tree.json").read_text())
    assert tree["frequency"] == sorted(tree["frequency"], reverse=True) and len(tree["paths"]) == 15
    loaded = load(str(tmp_path / "m"), device="cpu")
    assert loaded.model.static_tree.paths == [tuple(path) for path in tree["paths"]]


def test_shares_are_summed():
    assert draft_vocabulary.most_frequent([Counter({7: 3, 5: 1}), Counter({5: 10, 9: 10})], 3) == [
        5,
        7,
        9,
    ]


def test_the_script_writes_what_the_loader_reads(short_corpus, tmp_path, capsys):
    write_merged(tmp_path / "m")
    arguments = [
        "--model",
        tmp_path / "m",
        "--corpus",
        short_corpus,
        "--out",
        tmp_path / "m",
        "--device",
        "cpu",
    ]
    assert (
        script(draft_vocabulary.main, *arguments, "--prompts", 4, "--new-tokens", 20, "--size", 40)
        == 0
    )
    assert "40 tokens are" in capsys.readouterr().out
    written = json.loads((tmp_path / "m" / "medusa_vocabulary.json").read_text())["tokens"]
    assert (
        load(str(tmp_path / "m"), device="cpu").model.frequent == written
        and len(set(written)) == 40
    )
    assert script(draft_vocabulary.main, *arguments, "--size", 10**6) == 2


def test_without_heads_there_is_nothing_to_guess_from(short_corpus, tmp_path, capsys):
    write_base(tmp_path / "base")
    arguments = [
        "--model",
        tmp_path / "base",
        "--corpus",
        short_corpus,
        "--out",
        tmp_path,
        "--device",
        "cpu",
    ]
    assert script(draft_vocabulary.main, *arguments) == 2
    assert "has no Medusa heads" in capsys.readouterr().err


def test_frequent_paths_by_hand():
    ranks = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0], [9, 0]])
    assert search_tree.best_paths(ranks, topk=3, limit=10) == [
        ((0,), 0.6), ((0, 0), 0.4), ((1,), 0.2), ((0, 1), 0.2), ((1, 0), 0.2),
    ]  # fmt: skip


def test_a_corpus_line_that_is_no_chat_is_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text(
        '{"turns": []}\n{"turns": [{"role": "system", "content": "x"}]}\n'
    )
    write_base(tmp_path / "base")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", "--model", str(tmp_path / "base"), "--corpus", str(tmp_path / "bad.jsonl"),
                                    "--out", str(tmp_path / "out"), "--device", "cpu"])  # fmt: skip
        with pytest.raises(UserError, match="line 2: expected"):
            train_heads.main()


def test_unlearning_lowers_the_probability_of_repeats(short_corpus, tmp_path, capsys):
    assert doctest.testmod(unlearn_loops).failed == 0
    write_base(tmp_path / "base")
    arguments = [
        "--model",
        tmp_path / "base",
        "--corpus",
        short_corpus,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    options = ["--batch", 2, "--new-tokens", 24, "--ngram", 1, "--lr", 0.01, "--weight", 1]
    assert script(unlearn_loops.main, *arguments, *options, "--updates", 2) == 0
    result = json.loads((tmp_path / "out" / "unlearn_result.json").read_text())
    assert result["before"]["repeated_ngrams"] > 0 and result["before"] != result["after"]
    assert load(str(tmp_path / "out" / "base"), device="cpu").model.num_heads == 0

    lm = load(str(tmp_path / "base"), device="cpu").model.lm
    rows = [([5, 6, 5, 6], [False, False, True, True])]
    log_prob = lm(torch.tensor([[5, 6, 5, 6]])).logits[0, :-1].log_softmax(-1)
    likelihood, unlikelihood = unlearn_loops.losses(lm, rows)
    own = log_prob[[0, 1, 2], [6, 5, 6]]
    assert likelihood.item() == pytest.approx(-own.mean().item(), rel=0.03)  # bfloat16 products
    assert unlikelihood.item() == pytest.approx(
        -torch.log(1 - own[1:].exp()).mean().item(), rel=0.1, abs=1e-3
    )


def test_perplexity_of_a_model_that_knows_nothing(short_corpus, tmp_path, capsys):
    """All logits equal: the perplexity is the size of the vocabulary."""
    lm = load(str(write_base(tmp_path)), device="cpu").model.lm
    lm.get_output_embeddings().weight.zero_()
    lm.save_pretrained(tmp_path)
    assert (
        script(perplexity.main, "--model", tmp_path, "--corpus", short_corpus, "--device", "cpu")
        == 0
    )
    assert f"{math.log(101):.4f} nats a token, perplexity 101.00" in capsys.readouterr().out


def test_sweep_is_one_run_where_it_can_be_and_a_run_a_temperature(tmp_path, capfd):
    assert doctest.testmod(sweep).failed == 0
    model, questions = write_merged(tmp_path / "tiny"), tmp_path / "q.jsonl"
    rows = [{"question_id": n, "category": "math", "turns": ["1 + 1?"]} for n in (1, 2)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [
        "--nodes", "4,8", "--topk", "2,4", "--temperature", "0,0.7", "--out", tmp_path / "out",
        "--model", model, "--questions", questions, "--max-new-tokens", 12, "--device", "cpu",
    ]  # fmt: skip
    assert script(sweep.main, *arguments) == 0
    assert "0.7/dynamic:nodes=8:topk=4" in capfd.readouterr().out
    for name in ("0", "0.7"):
        assert len((tmp_path / "out" / name / "turns.jsonl").read_text().splitlines()) == 5 * 2
    assert {f"sweep_{name}.png" for name in ("nodes", "topk", "temperature")} <= {
        path.name for path in (tmp_path / "out" / "figures").iterdir()
    }
    assert script(sweep.main, *arguments, "--decoder", "dinamic") == 2
    assert "no decoder 'dinamic'; available: conditional, dynamic" in capfd.readouterr().err


def test_calibrate_writes_what_conditional_then_uses(short_corpus, tmp_path, capsys):
    write_merged(tmp_path / "m")
    arguments = [
        "--model",
        tmp_path / "m",
        "--corpus",
        short_corpus,
        "--out",
        tmp_path / "m",
        "--device",
        "cpu",
    ]
    assert (
        script(
            calibrate.main,
            *arguments,
            "--prompts",
            8,
            "--new-tokens",
            24,
            "--topk",
            8,
            "--nodes",
            12,
        )
        == 0
    )
    assert (
        "after" in capsys.readouterr().out
        and (tmp_path / "m" / "reliability.png").stat().st_size > 10_000
    )
    calibration = load(str(tmp_path / "m"), device="cpu").model.calibration
    assert (
        calibration == read_calibration(tmp_path / "m" / "medusa_calibration.json") != Calibration()
    )
    assert (
        script(calibrate.main, *arguments[:-4], "--out", tmp_path, "--prompts", 1) == 2
    )  # two halves need two


@pytest.fixture
def notes():
    """What a decoder notes on a text that the model itself wrote."""
    model = Model(tiny_llama(), tiny_heads())
    model.calibration = Calibration()
    prompt = [1, *range(5, 45, 3)]
    loaded = Loaded(model, None, "tiny", "", frozenset())
    decoder = Conditional(topk=8)
    decoder.setup(model)
    answer = [
        token for step in calibrate.steps_of(loaded, decoder, prompt, 40) for token in step.tokens
    ]
    return calibrate.notes_of(loaded, prompt, answer, 8, 40), model, prompt, answer


def test_the_likelihood_that_is_fitted_is_the_decoders_own_score(notes):
    """Guards against notes of a step that are labelled with the tokens of another."""
    noted, model, prompt, answer = notes
    decoder = Conditional(topk=8, nodes=64)
    decoder.setup(model)
    steps = list(decoder.decode(torch.tensor(prompt), Exact(), Stop(frozenset(), 40)))
    weights = [torch.tensor(Calibration().head_weight[min(depth, 1)]) for depth in range(4)]
    compared = at = 0
    assert (
        len(steps) - 1 <= len(noted) <= len(steps)
    )  # nothing is to be noted where nothing follows the root
    for step, note in zip(steps, noted, strict=False):
        likelihood = calibrate.log_likelihood(
            note,
            torch.stack(weights),
            torch.tensor(Calibration().successor_weight),
            torch.tensor(Calibration().floor),
        )
        right = answer[at + 1] if at + 1 < len(answer) else None
        for node in (step.draft.tree.depth == 1).nonzero().flatten().tolist():
            if step.draft.token[node] == right and note["target"][0] >= 0:
                expected = step.draft.log_prob[node] - Calibration().coverage[0]
                torch.testing.assert_close(likelihood[0], expected, rtol=1e-4, atol=1e-4)
                compared += 1
        at += len(step.tokens)
    assert compared > 5


def test_a_fit_is_more_likely_than_the_defaults(notes):
    fitted = calibrate.fit(notes[0], 4)
    assert calibrate.nats(notes[0], fitted, 4) < calibrate.nats(notes[0], Calibration(), 4) - 0.01
