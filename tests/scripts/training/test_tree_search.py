"""The best static tree."""

import json

import search_tree

from bench.inputs.fitted import read_fitted
from decoders.static.rank_tree import RankTree
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import script
from training.tree_search import best_paths


def test_search_tree_measures_ranks_and_writes_a_tree(short_corpus, tmp_path, capsys):
    folder = write_merged(tmp_path / "m")
    arguments = [
        "--model", folder, "--corpus", short_corpus, "--out", folder, "--device", "cpu",
        "--prompts", 8, "--new-tokens", 40, "--batch", 4, "--nodes", 16,
    ]  # fmt: skip
    assert script(search_tree.main, *arguments) == 0
    assert "top-1 by head" in capsys.readouterr().out
    tree = json.loads((folder / "medusa_tree.json").read_text())
    assert tree["frequency"] == sorted(tree["frequency"], reverse=True) and len(tree["paths"]) == 15
    parsed = read_fitted(folder / "medusa_tree.json", RankTree.parse)
    assert parsed.paths == [tuple(path) for path in tree["paths"]]


def test_frequent_paths_by_hand():
    ranks = [[0, 0], [0, 1], [1, 0], [0, 0], [9, 0]]
    assert best_paths(ranks, topk=3, limit=10) == [
        ((0,), 0.6), ((0, 0), 0.4), ((1,), 0.2), ((0, 1), 0.2), ((1, 0), 0.2),
    ]  # fmt: skip
