"""train_heads.py on a tiny model."""

import json
import re
from itertools import cycle

import pytest
import torch

import train_heads
from bench.inputs.loader import load
from decoders.model.heads import MedusaHeads
from decoders.model.model import Model
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.commands import basics, bench, script
from tests.helpers.lessons import lesson_of
from training.checkpoints import Checkpoint
from training.medusa import heads_loss


@pytest.mark.parametrize("layout", ["medusa", "merged"])
def test_train_heads_learns_and_its_folder_loads(short_corpus, tmp_path, layout):
    base = write_base(tmp_path / "base")
    merge = ["--merge"] if layout == "merged" else []
    arguments = [
        "--model", base, "--corpus", short_corpus, "--out", tmp_path / "out", "--heads", 3,
        "--max-length", 150, "--distill", 8, "--distill-tokens", 20, "--distill-batch", 4,
        "--batch-tokens", 512, "--save-dtype", "float32", "--device", "cpu", "--temperatures", "0",
        "--lr", "0.02",
    ]  # fmt: skip
    assert script(train_heads.main, *arguments, "--tokens", 4000, *merge) == 0
    loaded = load(str(tmp_path / "out" / layout), device="cpu")
    assert loaded.model.num_heads == 3
    (cache,) = (tmp_path / "out").glob("own_answers-*.jsonl")
    answers = [tuple(json.loads(line)) for line in cache.read_text().splitlines()]
    assert len(answers) == 8
    # The base is frozen. The heads know its own answers better than untrained ones do.
    before = load(str(base), device="cpu").model.lm.state_dict()
    after = loaded.model.lm.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    fresh = MedusaHeads(3, 32, 101)
    projection = loaded.model.lm.get_output_embeddings().weight
    fresh.out_weight.data.copy_(projection.expand_as(fresh.out_weight))
    with torch.no_grad():
        lesson = lesson_of(loaded, answers, ahead=3)
        trained = heads_loss(loaded.model.heads, *lesson)
        untrained = heads_loss(fresh, *lesson)
    assert (trained < untrained - 0.2).all()


def test_two_sessions_end_as_one(short_corpus, tmp_path, capsys):
    base = write_base(tmp_path / "base")

    def train(name, tokens, seed=0):
        arguments = [
            "--model", base, "--corpus", short_corpus, "--out", tmp_path / name, "--heads", 2,
            "--max-length", 150, "--batch-tokens", 64, "--save-dtype", "float32", "--device",
            "cpu", "--tokens", tokens, "--seed", seed,
        ]  # fmt: skip
        assert script(train_heads.main, *arguments) == 0
        return torch.load(tmp_path / name / "heads_state.pt", weights_only=True)

    first = train("two", 24)
    assert 24 <= first["seen"] < 200
    train("one", 200), train("two", 200)
    one, two = (
        torch.load(tmp_path / name / "heads_state.pt", weights_only=True) for name in ("one", "two")
    )
    assert (one["seen"], one["step"]) == (two["seen"], two["step"]) and one["step"] > first["step"]
    train("two", 200)  # All is done already.
    assert "trained before on" in capsys.readouterr().out


def interrupted_after(saves_at: int, train) -> None:
    """Run `train`, which is interrupted after a save at this step."""
    due = iter([False] * (saves_at - 1) + [True])
    save = Checkpoint.save

    def save_and_stop(self, state: dict) -> None:
        save(self, state)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "is_due", property(lambda _: next(due)))
        patch.setattr(Checkpoint, "save", save_and_stop)
        assert train() == 130


def test_an_interrupted_training_ends_with_the_weights_of_a_whole_one(answers, tmp_path):
    base = write_base(tmp_path / "base")

    def train(name):
        given = ["--model", base, "--answers", answers, "--out", tmp_path / name, *SHORT]
        more = ["--share-projection", "--sampled", 48, "--tokens", 900]
        return script(train_heads.main, *given, *more)

    assert train("whole") == 0
    interrupted_after(3, lambda: train("resumed"))
    assert train("resumed") == 0
    whole, resumed = (
        torch.load(tmp_path / name / "heads_state.pt", weights_only=True)
        for name in ("whole", "resumed")
    )
    assert whole["step"] == resumed["step"] > 6
    for name, weight in whole["heads"].items():
        assert weight.abs().sum() > 0 and torch.equal(weight, resumed["heads"][name]), name
    moments = zip(
        whole["optimizer"]["state"].values(), resumed["optimizer"]["state"].values(), strict=True
    )
    for one, other in moments:
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def answers(tmp_path):
    """Own answers that were made before, as train_heads.py keeps them."""
    file = tmp_path / "answers.jsonl"
    rows = [[[1, *range(5 + at, 45 + at)], 6] for at in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


SHORT = [
    "--max-length", 150, "--batch-tokens", 128, "--save-dtype", "float32", "--device", "cpu",
    "--heads", 3, "--lr", 0.02,
]  # fmt: skip


@pytest.mark.parametrize("layout", ["medusa", "vllm"])
def test_heads_that_share_the_projection_are_trained_and_resumed(answers, tmp_path, layout):
    """From answers that were made before; nothing is generated."""
    base = write_base(tmp_path / "base")
    arguments = [
        "--model", base, "--answers", answers, "--out", tmp_path / "out", "--share-projection",
        "--layers", 2, "--format", layout, *SHORT,
    ]  # fmt: skip
    assert script(train_heads.main, *arguments, "--tokens", 1500) == 0
    first = load(str(tmp_path / "out" / "medusa"), device="cpu").model
    assert first.num_heads == 3 and first.heads.shares_projection
    modes = {file.name: file.stat().st_mode for file in (tmp_path / "out" / "medusa").iterdir()}
    assert len(modes) == 2 and len(set(modes.values())) == 1, modes
    assert not list((tmp_path / "out").glob("own_answers-*"))
    assert script(train_heads.main, *arguments, "--tokens", 3000) == 0
    loaded = load(str(tmp_path / "out" / "medusa"), device="cpu")
    examples = [tuple(json.loads(line)) for line in answers.read_text().splitlines()]
    projection = loaded.model.lm.get_output_embeddings()
    with torch.no_grad():
        lesson = lesson_of(loaded, examples, ahead=3)
        trained = heads_loss(loaded.model.heads, *lesson)
        untrained = heads_loss(MedusaHeads(3, 32, 101, 2, projection), *lesson)
    assert (trained < untrained - 0.2).all()
    again = load(str(base), device="cpu").model.lm.get_output_embeddings().weight
    assert projection.weight.equal(again)  # It stays as it is.


def test_files_that_are_fitted_to_earlier_heads_are_told(answers, tmp_path, capsys):
    base, out = write_base(tmp_path / "base"), tmp_path / "out"
    given = ["--model", base, "--answers", answers, "--out", out, "--share-projection", *SHORT]
    assert script(train_heads.main, *given, "--tokens", 200) == 0
    assert "of earlier heads" not in capsys.readouterr().err
    (out / "medusa" / "medusa_tree.json").write_text("[[0]]")
    assert script(train_heads.main, *given, "--tokens", 400) == 0
    assert "holds medusa_tree.json of earlier heads; fit them again" in capsys.readouterr().err


def test_heads_are_not_written_over_those_that_they_begin_with(answers, tmp_path, capsys):
    """--out was another folder, and the result lies in a folder below it."""
    own = write_merged(tmp_path / "out" / "medusa")
    given = ["--model", own, "--answers", answers, "--out", tmp_path / "out", *SHORT]
    assert script(train_heads.main, *given) == 2
    assert "medusa is the model's own folder" in capsys.readouterr().err


def test_fewer_prompts_than_wanted_are_told(short_corpus, tmp_path, capsys):
    given = ["--model", write_base(tmp_path / "base"), "--corpus", short_corpus, "--heads", 3]
    given += ["--out", tmp_path / "out", "--max-length", 150, "--distill", 40, "--device", "cpu"]
    given += ["--distill-tokens", 8, "--tokens", 100]
    assert script(train_heads.main, *given) == 0
    assert "has 8 prompts that are short enough, for --distill 40" in capsys.readouterr().err


def test_answers_that_are_not_read_are_told(answers, tmp_path, capsys):
    """Own answers stand in the order of their prompts' lengths."""
    base = write_base(tmp_path / "base")
    given = ["--model", base, "--answers", answers, "--share-projection", *SHORT, "--tokens", 200]
    for examples, is_told in ((8, False), (5, True)):
        out = ["--out", tmp_path / f"of_{examples}", "--examples", examples]
        assert script(train_heads.main, *given, *out) == 0
        said = "answers.jsonl has more than --examples 5 answers; only the first ones are"
        assert (said in capsys.readouterr().err) == is_told


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either --corpus or --answers"),
        (["--corpus", "c.jsonl", "--answers", "a.jsonl"], "give either --corpus or --answers"),
        (["--answers", "a.jsonl", "--distill", 4], "--distill makes own answers"),
        (["--answers", "a.jsonl", "--merge", "--format", "vllm"], "leave out --format vllm"),
        (["--corpus", "c.jsonl", "--distill", 4, "--examples", 5], "--examples has no effect: --d"),
        (["--corpus", "c.jsonl", "--temperatures", 0.5], "--temperatures has no effect: --dist"),
        (["--corpus", "c.jsonl", "--distill-tokens", 9], "--distill-tokens has no effect: --di"),
        (["--corpus", "c.jsonl", "--distill-batch", 9], "--distill-batch has no effect: --dis"),
        (["--answers", "a.jsonl", "--template", "one_shot"], "--template has no effect: --answers"),
        (["--answers", "bad.jsonl"], "line 2: 200 is no token of this model; expected [token ids"),
    ],
)
def test_what_does_not_go_together_is_said(answers, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    (tmp_path / "bad.jsonl").write_text("[[1, 2, 3], 1]\n[[1, 200], 1]\n")
    assert script(train_heads.main, "--model", "base", "--out", "out", *SHORT, *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["hydra", "eagle"])
def test_any_kind_learns_from_the_same_answers_and_goes_on(
    kind, short_corpus, tmp_path, questions, capsys
):
    """Its folder is a model whose decoder is ready."""
    base = write_base(tmp_path / "base")
    arguments = [
        "--model", base, "--corpus", short_corpus, "--out", tmp_path / "out", "--max-length", 150,
        "--distill", 8, "--distill-tokens", 20, "--distill-batch", 4, "--batch-tokens", 512,
        "--save-dtype", "float32", "--device", "cpu", "--temperatures", 0, "--lr", 0.01,
        "--kind", kind,
    ]  # fmt: skip

    def last_losses() -> list[float]:
        return json.loads(re.search(r"\[.*\]", capsys.readouterr().out)[0])

    assert script(train_heads.main, *arguments, "--tokens", 100) == 0
    early = last_losses()
    assert script(train_heads.main, *arguments, "--tokens", 6000) == 0
    assert all(late < before - 0.1 for late, before in zip(last_losses(), early, strict=True))
    state = torch.load(tmp_path / "out" / f"{kind}_state.pt", weights_only=True)
    assert state["seen"] >= 6000 and state["seconds"] > 0
    # Medusa's heads learn from the answers that are there.
    (cache,) = (tmp_path / "out").glob("own_answers-*.jsonl")
    made = cache.read_text()
    if kind == "hydra":
        assert script(train_heads.main, *arguments[:-2], "--tokens", 100) == 0
    assert list((tmp_path / "out").glob("own_answers-*.jsonl")) == [cache]
    assert cache.read_text() == made
    run = basics(tmp_path / "out" / kind, questions, tmp_path / "run")
    assert bench(*run, "--decoder", f"greedy,{kind}:nodes=8", "--temperature", 0) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/turns.jsonl").read_text().splitlines()]
    greedys, ours = (
        [row["token_ids"] for row in rows if row["decoder"].startswith(name)]
        for name in ("greedy", kind)
    )
    assert greedys == ours


@pytest.mark.parametrize("kind", ["medusa", "hydra", "eagle"])
def test_a_sampled_vocabulary_and_kept_hidden_states_train_as_well(kind, answers, tmp_path, capsys):
    """Two sessions, and the kept hidden states are there for the second one and for other kinds."""
    base = write_base(tmp_path / "base")
    share = [] if kind == "eagle" else ["--share-projection"]
    short = [each for each in SHORT if each not in ("--heads", 3)]
    given = [
        "--model", base, "--answers", answers, "--kind", kind, *share, *short, "--sampled", 48,
        "--states", tmp_path / "kept",
    ]  # fmt: skip

    def losses() -> list[float]:
        return json.loads(re.search(r"\[.*\]", capsys.readouterr().out)[0])

    assert script(train_heads.main, *given, "--out", tmp_path / "out", "--tokens", 100) == 0
    early = losses()
    assert script(train_heads.main, *given, "--out", tmp_path / "out", "--tokens", 3000) == 0
    assert all(late < before - 0.1 for late, before in zip(losses(), early, strict=True))
    assert script(train_heads.main, *given, "--out", tmp_path / "next", "--tokens", 100) == 0
    assert "8 of 8 answers so far" in capsys.readouterr().err


def test_a_sampled_vocabulary_needs_the_shared_projection(short_corpus, tmp_path, capsys):
    """It is told before the model's own answers are made."""
    base, out = write_base(tmp_path / "base"), tmp_path / "out"
    given = ["--model", base, "--corpus", short_corpus, "--out", out, "--distill", 4, *SHORT]
    assert script(train_heads.main, *given, "--sampled", 48) == 2
    assert "give --share-projection too, or leave it out" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_states_in_a_folder_that_cannot_be_made_are_told_at_once(short_corpus, tmp_path, capsys):
    base, out = write_base(tmp_path / "base"), tmp_path / "out"
    given = ["--model", base, "--corpus", short_corpus, "--out", out, "--distill", 4, *SHORT]
    assert script(train_heads.main, *given, "--states", short_corpus) == 2
    assert f"{short_corpus}: File exists" in capsys.readouterr().err
    assert not list(out.iterdir())


def test_the_models_own_folder_is_refused(answers, tmp_path, capsys):
    base = write_base(tmp_path / "base")
    before = sorted(base.iterdir())
    given = ["--model", base, "--answers", answers, "--out", base / ".." / "base", *SHORT]
    assert script(train_heads.main, *given) == 2
    assert "base is the model's own folder" in capsys.readouterr().err
    assert sorted(base.iterdir()) == before


@pytest.fixture
def widths(monkeypatch) -> list[int]:
    """The numbers of columns of all texts that hidden states are made of."""
    found: list[int] = []
    hidden_states_of = Model.hidden_states_of

    def noted(self, ids):
        found.append(ids.shape[1])
        return hidden_states_of(self, ids)

    monkeypatch.setattr(Model, "hidden_states_of", noted)
    return found


def test_examples_end_where_the_models_context_ends(tmp_path, widths, capsys):
    """The columns for what the heads guess are in the context, too."""
    base, answers = write_base(tmp_path / "base", max_position_embeddings=60), tmp_path / "a.jsonl"
    answers.write_text(json.dumps([[*range(1, 100)], 9]) + "\n")
    given = ["--model", base, "--answers", answers, "--out", tmp_path / "out", "--device", "cpu"]
    assert script(train_heads.main, *given, "--heads", 3, "--tokens", 40) == 0
    assert set(widths) == {60}
    says = "examples are cut at 57 tokens, not at --max-length 1024: the model's context is 60"
    assert says in capsys.readouterr().err


def test_own_answers_fit_in_the_models_context(short_corpus, tmp_path, widths, capsys):
    """Prompts have 11 tokens. Own answers are made whole, and cut for the heads."""
    base, out = write_base(tmp_path / "base", max_position_embeddings=60), tmp_path / "out"
    given = [
        "--model", base, "--corpus", short_corpus, "--out", out, "--distill", 4, *SHORT,
        "--tokens", 20, "--temperatures", 0,
    ]  # fmt: skip
    assert script(train_heads.main, *given, "--distill-tokens", 50) == 2
    assert "is longer than 10 tokens, which --max-length and --dist" in capsys.readouterr().err
    assert script(train_heads.main, *given, "--distill-tokens", 49) == 0
    (cache,) = out.glob("own_answers-*.jsonl")
    made = [json.loads(line) for line in cache.read_text().splitlines()]
    assert {start for _, start in made} == {11} and max(len(ids) for ids, _ in made) == 60
    assert max(widths) <= 60


def test_no_more_of_the_corpus_is_read_than_own_answers_need(short_corpus, tmp_path):
    base = write_base(tmp_path / "base")
    with short_corpus.open("a") as file:
        file.write("no chat\n")
    given = ["--model", base, "--corpus", short_corpus, "--out", tmp_path / "out", *SHORT]
    more = ["--distill", 8, "--distill-tokens", 4, "--tokens", 9]
    assert script(train_heads.main, *given, *more) == 0


def test_another_dtype_has_files_of_its_own(short_corpus, tmp_path):
    base, kept = write_base(tmp_path / "base"), tmp_path / "kept"
    given = [
        "--model", base, "--corpus", short_corpus, "--out", tmp_path / "out", *SHORT, "--distill",
        4, "--distill-tokens", 4, "--tokens", 9, "--states", kept,
    ]  # fmt: skip
    assert script(train_heads.main, *given) == 0
    assert script(train_heads.main, *given, "--kind", "hydra", "--dtype", "bfloat16") == 0
    assert len(list((tmp_path / "out").glob("own_answers-*.jsonl"))) == 2
    assert len(list(kept.glob("*.f16"))) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--kind", "eagle", "--heads", 3], "--heads has no effect: --kind is eagle"),
        (["--kind", "eagle", "--share-projection"], "--share-projection has no effect: --kind"),
        (["--kind", "hydra", "--merge"], "--merge has no effect: --kind is hydra; leave it out"),
        (["--kind", "other"], "--kind is 'other'; expected medusa, hydra, eagle"),
    ],
)
def test_a_flag_without_effect_on_a_kind_is_refused(answers, tmp_path, capsys, arguments, says):
    write_base(tmp_path / "base")
    common = ["--model", tmp_path / "base", "--answers", answers, "--out", tmp_path / "out"]
    assert script(train_heads.main, *common, *arguments) == 2
    assert says in capsys.readouterr().err


OTHERS = {
    "lr": ["--lr", 0.5],
    "heads": ["--heads", 2],
    "layers": ["--layers", 2],
    "seed": ["--seed", 9],
    "answers": [],
    "model": ["--model", "other"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_another_training_is_not_taken_for_this_one(answers, tmp_path, monkeypatch, capsys, what):
    """It used to be taken as the result, or to end in a traceback."""
    monkeypatch.chdir(tmp_path)
    write_base(tmp_path / "base")
    write_base(tmp_path / "other", seed=3)
    given = ["--model", "base", "--answers", answers, "--out", "out", *SHORT, "--tokens", 100]
    assert script(train_heads.main, *given) == 0
    result = tmp_path / "out" / "medusa" / "medusa_lm_head.safetensors"
    before = result.read_bytes()
    if what == "answers":
        answers.write_text(answers.read_text().replace("5", "6"))
    assert script(train_heads.main, *given, *OTHERS[what]) == 2
    error = capsys.readouterr().err
    assert "out/heads_state.pt is of another training (" in error and f"{what}: " in error
    assert result.read_bytes() == before
    assert script(train_heads.main, *given, "--save-dtype", "float16") == (what == "answers") * 2


def test_a_training_that_went_wrong_is_told(answers, tmp_path, capsys):
    base = write_base(tmp_path / "base")
    given = ["--model", base, "--answers", answers, *SHORT]
    assert script(train_heads.main, *given, "--out", tmp_path / "good", "--tokens", 600) == 0
    assert "the loss has grown" not in capsys.readouterr().err
    wild = [*given, "--out", tmp_path / "wild", "--tokens", 1500, "--lr", 1e6]
    assert script(train_heads.main, *wild) == 0
    assert "the loss has grown, from [" in capsys.readouterr().err
    mad = [*given, "--out", tmp_path / "mad", "--tokens", 1500, "--lr", 1e38]
    assert script(train_heads.main, *mad) == 2
    assert "a loss became NaN or infinite at " in capsys.readouterr().err


@pytest.mark.parametrize("of_another", [2, 40])
def test_heads_without_a_target_have_not_gone_wrong(
    of_another, answers, tmp_path, monkeypatch, capsys
):
    """Answers of two tokens have a target for the first head alone."""
    monkeypatch.setattr("training.heads_training.batches", lambda *_: cycle([[0], [1]]))
    rows = [[[1, *range(5, 10 + length)], 6] for length in (2, of_another)]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--model", write_base(tmp_path / "base"), "--answers", answers, *SHORT]
    assert script(train_heads.main, *given, "--out", tmp_path / "out", "--tokens", 60) == 0
    said = capsys.readouterr()
    assert "the loss has grown" not in said.err
    losses = json.loads(re.search(r"\[.*\]", said.out)[0])
    assert [loss > 0 for loss in losses] == [True, of_another > 2, of_another > 2]


def test_a_corpus_of_questions_alone_is_told(tmp_path, capsys):
    base, corpus = write_base(tmp_path / "base"), tmp_path / "questions.jsonl"
    corpus.write_text('{"turns": [{"role": "user", "content": "Why?"}]}\n')
    given = ["--model", base, "--corpus", corpus, "--out", tmp_path / "out", *SHORT]
    assert script(train_heads.main, *given) == 2
    assert "questions.jsonl has no answer to a question" in capsys.readouterr().err


def test_a_checkpoint_of_an_earlier_version_goes_on(answers, tmp_path, capsys):
    base = write_base(tmp_path / "base")
    given = ["--model", base, "--answers", answers, "--out", tmp_path / "out", *SHORT]
    assert script(train_heads.main, *given, "--tokens", 100) == 0
    state = torch.load(tmp_path / "out" / "heads_state.pt", weights_only=True)
    del state["settings"]
    torch.save(state, tmp_path / "out" / "heads_state.pt")
    assert script(train_heads.main, *given, "--tokens", 300) == 0
    said = capsys.readouterr().err
    assert "they are not compared" in said and "M parameters takes about" in said


def test_the_first_save_comes_soon(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("training.checkpoints.time.monotonic", lambda: clock[0])
    checkpoint = Checkpoint(tmp_path / "state.pt", {"lr": 1}, every_s=120.0)
    assert not checkpoint.is_due
    due = []
    for clock[0] in range(101, 400):
        if checkpoint.is_due:
            due.append(clock[0])
            checkpoint.save({})
    assert due == [110, 230, 350]
