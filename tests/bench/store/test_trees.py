"""Trees of single answers: their pictures, and their second pass over a finished run."""

import doctest
import json
import shutil
from itertools import combinations, pairwise

import numpy as np
import pytest
import record_trees
import show_tree
import torch
from matplotlib.patches import FancyBboxPatch

from bench.report import derive
from bench.reporting.tree_picture import tree_figure
from bench.store.records import read_turns
from bench.store.trees import LEAST, AnswerTrees, StepTree, read_trees, token_texts, write_trees
from decoders.loop import Step
from decoders.tree import Draft, Tree, published_trees
from tests.helpers.commands import basics, bench, script
from tests.helpers.models import tiny_tokenizer


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A run of two questions of two turns each."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [
        {"question_id": q, "category": "writing", "turns": [f"Say {q}.", "And again?"]}
        for q in (5, 6)
    ]
    (folder / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--decoder", "greedy,static,dynamic:nodes=16,hf-greedy", "--num-choices", 2]
    assert bench(*basics(model, folder / "two.jsonl", folder / "run"), *arguments) == 0
    return folder / "run"


@pytest.fixture
def run_folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# --- Pictures ----------------------------------------------------------------------------------------------------------------


def boxes(figure) -> list[FancyBboxPatch]:
    (axes,) = (axes for axes in figure.axes if axes.get_label() == "tree")
    return [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]


@pytest.mark.parametrize("name", ["mc_sim_7b_63", "medusa_choices of one line", "random"])
def test_nothing_overlaps_and_every_label_fits_its_box(name):
    rng = np.random.default_rng(0)
    parent = {
        "mc_sim_7b_63": lambda: Tree.from_paths(published_trees()["mc_sim_7b_63"]).parent.tolist(),
        "medusa_choices of one line": lambda: [0, *range(11)],
        "random": lambda: [0, *(int(rng.integers(0, node)) for node in range(1, 64))],
    }[name]()
    labels = [
        str(rng.choice(["␣the", "x", "$a_b$", "<|endoftext|>", "漢字", "\\frac", "⏎⏎"]))
        for _ in parent
    ]
    figure = tree_figure(parent, labels, [0.5] * len(parent), kept=[0, 1], title="50 % of $x")
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    spans = [box.get_window_extent(renderer) for box in boxes(figure)]
    assert len(spans) == len(parent)
    assert not any(a.overlaps(b) for a, b in combinations(spans, 2))
    texts = [
        text
        for text in boxes(figure)[0].axes.texts
        if text.get_text() and not text.get_text().startswith(("depth", "root"))
    ]
    for node, span in enumerate(spans):
        own = [text.get_window_extent(renderer) for text in texts[3 * node : 3 * node + 3]]
        assert all(span.x0 <= each.x0 and each.x1 <= span.x1 for each in own), labels[node]
        assert all(a.x1 <= b.x0 for a, b in pairwise(own)), labels[node]
    page = figure.bbox
    assert all(
        page.x0 <= span.x0 and span.x1 <= page.x1 and page.y0 <= span.y0 and span.y1 <= page.y1
        for span in spans
    )


def test_a_picture_of_a_small_tree_by_hand():
    figure = tree_figure(
        [0, 0, 0, 1], ["a", "$b", "c", "d"], [1.0, 0.5, 0.25, 0.0001], kept=[0, 1], title="t"
    )
    tree, mask = figure.axes
    assert [text.get_text() for text in tree.texts] == [
        "root", "depth 1", "depth 2", "0", "a", "100", "1", "$b", "50", "2", "c", "25", "3", "d", "<0.1",
    ]  # fmt: skip
    ys = [round(box.get_y(), 3) for box in boxes(figure)]
    assert ys[0] == ys[1] == ys[3] < ys[2]  # a first child stands beside its parent
    attended = mask.images[0].get_array() > 0.5
    assert attended.astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1],
    ]  # cache first


def test_tokens_are_made_visible():
    tokenizer = tiny_tokenizer()
    ids = tokenizer("a b\n", add_special_tokens=False).input_ids
    step = StepTree.of(
        Step(
            [ids[0]],
            4,
            None,
            Draft(Tree.from_parent([0, 0, 1, 2]), torch.tensor(ids)),
            torch.tensor([0, 0, 0]),
        )
    )
    assert list(token_texts(tokenizer, [step]).values()) == ["a", "b", "␣", "⏎"] and step.kept == [
        0
    ]


def test_show_tree_draws_the_steps_that_are_asked_for(model, tmp_path, capsys):
    arguments = ["--model", model, "--device", "cpu", "--prompt", "Hi $x$", "--out", tmp_path]
    assert (
        script(show_tree.main, *arguments, "--decoder", "dynamic:nodes=8", "--steps", "1,3-4") == 0
    )
    assert {f.name for f in tmp_path.iterdir()} == {
        f"tree-dynamic-nodes-8-{step:03}.png" for step in (1, 3, 4)
    }
    assert (
        script(show_tree.main, *arguments, "--decoder", "static", "--steps", "2", "--format", "svg")
        == 0
    )
    assert "<svg" in (tmp_path / "tree-static-002.svg").read_text()
    assert script(show_tree.main, "--tree", "mc_sim_7b_63", "--out", tmp_path) == 0
    assert (tmp_path / "tree-mc_sim_7b_63.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "x", "--decoder", "dynamc"], "Did you mean 'dynamic'"),
        (["--prompt", "x", "--decoder", "hf-greedy"], "drafts no tree that could be shown"),
        (["--prompt", "x", "--steps", "900"], "there is no step 900"),
        (["--prompt", "x" * 300], "the model's context is 160"),
        (["--prompt", "x", "--steps", "0"], "expected numbers from 1 on"),
        (["--tree", "mc_sim"], "neither a published tree nor a file"),
        (["--tree", "own"], "needs a model"),
        ([], "one of the arguments --prompt --tree is required"),
    ],
)
def test_show_tree_says_what_is_wrong(arguments, says, model, tmp_path, capsys):
    assert (
        script(show_tree.main, "--model", model, "--device", "cpu", "--out", tmp_path, *arguments)
        == 2
    )
    assert says in capsys.readouterr().err


# --- The second pass ---------------------------------------------------------------------------------------------------------


def test_recorded_trees_are_those_of_the_run(run_folder):
    before = (run_folder / "turns.jsonl").read_bytes()
    assert script(record_trees.main, run_folder, "--questions", "5") == 0
    assert (run_folder / "turns.jsonl").read_bytes() == before
    turns = {turn.key: turn for turn in read_turns(run_folder / "turns.jsonl")[0]}
    trees = read_trees(run_folder)
    assert trees.keys() == {
        key for key in turns if key[0] == 5 and key[1] in ("static", "dynamic:nodes=16")
    }
    for key, answer in trees.items():
        turn, said = turns[key], []
        for step, accept, nodes in zip(answer.steps, turn.accept_lengths, turn.nodes, strict=True):
            assert len(step.token) == nodes and (step.log_prob is None) == (key[1] == "static")
            said += [step.token[node] for node in step.kept[:accept]]
            assert all(step.parent[b] == a for a, b in pairwise(step.kept))
        assert said == turn.token_ids
    assert '"5/1/0/1":' in (run_folder / "report.html").read_text(encoding="utf-8")

    assert script(record_trees.main, run_folder, "--questions", "6", "--decoder", "static") == 0
    assert trees.items() < read_trees(run_folder).items()


def test_the_trees_of_auto_are_those_of_the_budgets_that_the_run_had(model, finished, tmp_path):
    folder = tmp_path / "auto"
    arguments = ["--decoder", "dynamic:nodes=auto,conditional:nodes=auto"]
    assert bench(*basics(model, finished.parent / "two.jsonl", folder), *arguments) == 0
    assert script(record_trees.main, folder, "--questions", "5,6") == 0
    assert len(read_trees(folder)) == 8
    path = folder / "run.json"
    run = json.loads(path.read_text())
    rows = run["step_times"]["seconds"]
    run["step_times"]["seconds"] = [
        [1.0 + 0.001 * at for at in range(len(row))] for row in rows
    ]  # as on a quick machine
    run["draft_times"] = {
        spec: dict.fromkeys(each, 0.001) for spec, each in run["draft_times"].items()
    }
    path.write_text(json.dumps(run))
    runner, _ = record_trees.reopen(run)
    for spec, decoder in runner.decoders.items():
        assert [list(row) for row in decoder.budget.times.seconds] == run["step_times"]["seconds"]
        assert list(decoder.budget.draft_s.values()) == list(run["draft_times"][spec].values())


def test_a_log_probability_of_nothing_can_be_written_and_read(tmp_path):
    log_prob = torch.tensor([0.0, -1.0, -torch.inf])
    draft = Draft(Tree.from_parent([0, 0, 0]), torch.tensor([5, 6, 7]), log_prob)
    tree = StepTree.of(Step([5], 3, None, draft, torch.tensor([0])))
    answers = [AnswerTrees(1, "d", 0, 1, [tree], {5: "a", 6: "b", 7: "c"})]
    write_trees(tmp_path, answers)
    assert read_trees(tmp_path)[1, "d", 0, 1].steps[0].log_prob == [0.0, -1.0, LEAST]
    log_prob[2] = torch.nan
    with pytest.raises(ValueError, match="are NaN"):
        StepTree.of(Step([5], 3, None, draft, torch.tensor([0])))


def test_an_answer_that_comes_out_otherwise_is_left_out(run_folder, capsys):
    rows = [json.loads(line) for line in (run_folder / "turns.jsonl").read_text().splitlines()]
    changed = next(
        row
        for row in rows
        if row["decoder"] == "static" and row["turn"] == 2 and row["choice"] == 0
    )
    changed["token_ids"][0] += 1
    (run_folder / "turns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = str(changed["question_id"])
    assert script(record_trees.main, run_folder, "--questions", asked, "--decoder", "static") == 1
    assert f"not the same answer: question {asked}, static, turn 2" in capsys.readouterr().err
    assert len(read_trees(run_folder)) == 3


def test_the_examples_in_the_scripts():
    for module in (record_trees, show_tree):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--questions", "7"], "does not ask question 7; it asks "),
        (["--questions", "x"], "expected some such as 81,82"),
        (["--questions", "5", "--decoder", "dynamic"], "the run has no decoder 'dynamic'"),
        (["--questions", "5", "--decoder", "hf-greedy"], "drafts no tree that could be shown"),
    ],
)
def test_record_trees_says_what_is_wrong(arguments, says, run_folder, capsys):
    assert script(record_trees.main, run_folder, *arguments) == 2
    assert says in capsys.readouterr().err and not (run_folder / "trees.jsonl").exists()


def test_what_the_run_was_made_of_must_still_be_there(run_folder, capsys):
    run = json.loads((run_folder / "run.json").read_text())
    for part, name, says in (
        ("model", "identity", "no longer the model"),
        ("questions", "sha256", "have changed since"),
    ):
        changed = run | {part: run[part] | {name: "another"}}
        (run_folder / "run.json").write_text(json.dumps(changed))
        assert script(record_trees.main, run_folder, "--questions", "5", "--decoder", "static") == 2
        assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: row.pop("steps"),
        lambda row: row["steps"][0]["parent"].__setitem__(1, 9),
        lambda row: row["steps"][0]["kept"].append(99),
        lambda row: row["steps"][0]["token"].pop(),
        lambda row: row["text"].clear(),
        lambda row: row.update(text=[]),
        lambda row: row.update(question_id=[]),
        lambda row: row["steps"][0].update(log_prob=["0", 1.0]),
        lambda row: row["steps"][0].update(kept=["0"]),
    ],
)
def test_damaged_trees_are_one_line(damage, run_folder, capsys):
    row = dict(
        question_id=5, decoder="static", choice=0, turn=1, text={"1": "a"},
        steps=[dict(parent=[0, 0], token=[1, 1], log_prob=None, kept=[0])],
    )  # fmt: skip
    (run_folder / "trees.jsonl").write_text(json.dumps(row) + "\n")
    assert len(read_trees(run_folder)) == 1
    damage(row)
    (run_folder / "trees.jsonl").write_text(json.dumps(row) + "\n")
    assert script(record_trees.main, run_folder, "--questions", "5", "--decoder", "static") == 2
    error = capsys.readouterr().err
    assert "line 1 is not an answer's trees" in error and error.count("\n") == 1
    derive(run_folder)
    assert (
        "the report is without trees" in capsys.readouterr().err
        and (run_folder / "report.html").exists()
    )
