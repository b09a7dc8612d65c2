"""Fitting the weights of `conditional`."""

import json
from types import SimpleNamespace

import calibrate
import pytest
import torch

from bench.inputs.chat import Chat
from bench.inputs.fitted import read_fitted
from bench.inputs.loader import Loaded, load
from bench.running.decoders import bind, make_decoder
from decoders.accept import Exact
from decoders.conditional.calibration import FILE, Calibration
from decoders.conditional.decoder import Conditional
from decoders.engine.engine import Engine
from decoders.step import Stop
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import script
from tests.helpers.models import tiny_heads, tiny_llama
from training.calibration_fit import _prompts, fit, log_likelihood, nats
from training.calibration_notes import Notes, notes_of

PROMPT = [1, *range(5, 45, 3)]
TOKENS = 40


def test_calibrate_writes_what_conditional_then_uses(short_corpus, tmp_path, capsys):
    folder = write_merged(tmp_path / "m")
    with short_corpus.open("a") as more:
        more.write("not read, as 8 prompts stand before it\n")
    arguments = ["--model", folder, "--corpus", short_corpus, "--device", "cpu", "--out"]
    few = ["--prompts", 8, "--new-tokens", 24, "--topk", 8, "--nodes", 12]
    assert script(calibrate.main, *arguments, folder, *few) == 0
    assert "after" in capsys.readouterr().out
    assert (folder / "reliability.png").stat().st_size > 10_000
    written = read_fitted(folder / FILE, Calibration.parse)
    decoder = bind("conditional", make_decoder("conditional"), load(str(folder), device="cpu"))
    assert decoder.files[FILE] == written != Calibration()
    assert script(calibrate.main, *arguments, tmp_path, "--prompts", 1) == 2  # Two halves need two.
    assert "--prompts: '1' is not an integer from 2 on" in capsys.readouterr().err


def test_a_conversation_is_fitted_to_or_judged_on_and_not_both(tmp_path):
    """All first turns were in one half, and all second ones in the other."""
    corpus = tmp_path / "two_turns.jsonl"
    with corpus.open("w") as out:
        for letter in "abcde":
            turns = [{"role": role, "content": letter} for role in 2 * ("user", "assistant")]
            out.write(json.dumps({"turns": turns}) + "\n")
    loaded = load(str(write_merged(tmp_path / "m")), device="cpu")
    settings = SimpleNamespace(corpus=corpus, prompts=9, new_tokens=8)
    halves = _prompts(loaded, Chat.of(loaded.tokenizer), settings)
    texts = [[loaded.tokenizer.decode(prompt) for prompt in half] for half in halves]
    asked = [[text.removeprefix("<s>u:")[0] for text in half] for half in texts]
    assert asked == [list("aacce"), list("bbdd")]


def test_a_prompt_that_stands_twice_is_not_fitted_to_and_judged_on(tmp_path):
    corpus = tmp_path / "repeated.jsonl"
    with corpus.open("w") as out:
        for letter in "aabbab":
            turns = [{"role": role, "content": letter} for role in ("user", "assistant")]
            out.write(json.dumps({"turns": turns}) + "\n")
    loaded = load(str(write_merged(tmp_path / "m")), device="cpu")
    settings = SimpleNamespace(corpus=corpus, prompts=9, new_tokens=8)
    fitted, judged = _prompts(loaded, Chat.of(loaded.tokenizer), settings)
    assert len(fitted) == len(judged) == 1 and fitted != judged


@pytest.fixture
def loaded():
    model = Engine(tiny_llama(), tiny_heads())
    return Loaded(model, "tiny", where="", base="", identity="", contents="", eos=frozenset())


@pytest.fixture
def notes(loaded):
    """What a decoder notes, step by step, on a text that the model itself wrote."""
    return notes_of(loaded, Calibration(), PROMPT, topk=8, tokens=TOKENS)


def test_the_likelihood_that_is_fitted_is_the_decoders_own_score(loaded, notes):
    """Guards against notes of a step that are labelled with the tokens of another."""
    decoder = Conditional(topk=8, nodes=64)
    decoder.setup(loaded.model)
    steps = list(decoder.decode(torch.tensor(PROMPT), Exact(), Stop(frozenset(), TOKENS)))
    answer = [token for step in steps for token in step.tokens]
    default = Calibration()
    head_weight = torch.tensor([default.head_weight[min(depth, 1)] for depth in range(4)])
    successor_weight, floor = torch.tensor(default.successor_weight), torch.tensor(default.floor)
    compared = at = 0
    # Nothing is to be noted where nothing follows the root.
    assert len(steps) - 1 <= len(notes) <= len(steps)
    for step, note in zip(steps, notes, strict=False):
        likelihood = log_likelihood(note, head_weight, successor_weight, floor)
        right = answer[at + 1] if at + 1 < len(answer) else None
        for node in (step.draft.tree.depth == 1).nonzero().flatten().tolist():
            if step.draft.token[node] == right and note.target[0] >= 0:
                expected = step.draft.log_prob[node] - default.coverage[0]
                torch.testing.assert_close(likelihood[0], expected, rtol=1e-4, atol=1e-4)
                compared += 1
        at += len(step.tokens)
    assert compared > 5


def test_a_fit_is_more_likely_than_the_defaults(notes):
    joined = Notes.joined(notes)
    fitted = fit(joined, 4)
    assert nats(joined, fitted, 4) < nats(joined, Calibration(), 4) - 0.01


def test_a_better_calibration_is_not_overwritten(short_corpus, tmp_path, capsys, monkeypatch):
    """Whatever is there, and whatever the fit is: it must be better on prompts not fitted to."""
    folder = write_merged(tmp_path / "m")
    few = ["--prompts", 8, "--new-tokens", 24, "--topk", 8, "--nodes", 12]
    given = ["--model", folder, "--corpus", short_corpus, "--device", "cpu", "--out", folder, *few]
    assert script(calibrate.main, *given) == 0
    good, drawn = (folder / FILE).read_bytes(), (folder / "reliability.png").read_bytes()
    worse = Calibration(head_weight=((9.0, 9.0, 9.0, 9.0),))
    with monkeypatch.context() as patch:
        patch.setattr("training.calibration_fit.fit", lambda *about: worse)
        assert script(calibrate.main, *given) == 0
    assert (folder / FILE).read_bytes() == good
    assert (folder / "reliability.png").read_bytes() == drawn  # The figure of the one that stays.
    assert "stays as it was" in capsys.readouterr().out
    (folder / FILE).write_text(json.dumps(worse.content()))
    assert script(calibrate.main, *given) == 0
    assert read_fitted(folder / FILE, Calibration.parse) != worse


def test_heads_that_guess_few_tokens_are_calibrated(loaded):
    """A known successor may be a token that they lack, and the fit ended in NaN."""
    loaded.model.heads.restrict_to(torch.arange(0, loaded.model.vocab, 2))
    found = notes_of(loaded, Calibration(), PROMPT, topk=60, tokens=TOKENS)
    fitted = fit(
        Notes.joined(found), loaded.model.num_heads
    )  # Refuses numbers that are not finite.
    assert len(fitted.head_weight) == loaded.model.num_heads
