"""Pictures of trees, by show_tree.py."""

import pytest
import show_tree

from tests.helpers.commands import script


def test_show_tree_draws_the_steps_that_are_asked_for(model, tmp_path):
    arguments = ["--model", model, "--device", "cpu", "--prompt", "Hi $x$", "--out", tmp_path]
    some = ["--decoder", "dynamic:nodes=8", "--steps", "1,3-4"]
    assert script(show_tree.main, *arguments, *some) == 0
    names = {f"tree-dynamic-nodes-8-{step:03}.png" for step in (1, 3, 4)}
    assert {file.name for file in tmp_path.iterdir()} == names
    vector = ["--decoder", "static", "--steps", "2", "--format", "svg"]
    assert script(show_tree.main, *arguments, *vector) == 0
    assert "<svg" in (tmp_path / "tree-static-002.svg").read_text()


def test_show_tree_draws_a_static_tree_without_a_model(tmp_path):
    assert script(show_tree.main, "--tree", "mc_sim_7b_63", "--out", tmp_path) == 0
    assert (tmp_path / "tree-mc_sim_7b_63.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "my.json").write_text("[[0], [1], [0, 0]]")
    assert script(show_tree.main, "--tree", tmp_path / "my.json", "--out", tmp_path) == 0
    assert (tmp_path / "tree-my.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--prompt", "x", "--decoder", "dynamc"], "Did you mean 'dynamic'"),
        (["--prompt", "x", "--decoder", "hf-greedy"], "drafts no tree that could be shown"),
        (["--prompt", "x", "--steps", "900"], "there is no step 900"),
        (["--prompt", "x" * 300], "the model's context is 160"),
        (["--prompt", "x", "--steps", "0"], "expected numbers from 1 on"),
        (["--tree", "mc_sim_7b_63"], "--model has no effect: --tree shows a static tree's shape"),
        ([], "one of the arguments --prompt --tree is required"),
    ],
)
def test_show_tree_says_what_is_wrong(arguments, says, model, tmp_path, capsys):
    common = ["--model", model, "--device", "cpu", "--out", tmp_path]
    assert script(show_tree.main, *common, *arguments) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tree", "mc_sim"], "neither a published tree nor a file"),
        (["--tree", "own"], "needs a model"),
        (["--tree", "mc_sim_7b_63", "--steps", 4], "--steps has no effect: --tree shows"),
    ],
)
def test_show_tree_says_what_is_wrong_with_a_static_tree(arguments, says, tmp_path, capsys):
    assert script(show_tree.main, "--out", tmp_path, *arguments) == 2
    assert says in capsys.readouterr().err
