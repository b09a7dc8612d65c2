"""The best static tree."""

import json
import re
from types import SimpleNamespace

import calibrate
import pytest
import search_tree
import torch

from bench.inputs.fitted import read_fitted
from decoders.static.rank_tree import RankTree
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import script
from training.tree_search import best_paths, ranks_of, tokens_per_step


def arguments(folder, corpus) -> list[object]:
    return [
        "--model", folder, "--corpus", corpus, "--out", folder, "--device", "cpu",
        "--prompts", 8, "--new-tokens", 40, "--batch", 4, "--nodes", 16,
    ]  # fmt: skip


def test_search_tree_measures_ranks_and_writes_a_tree(short_corpus, tmp_path, capsys):
    folder = write_merged(tmp_path / "m")
    with short_corpus.open("a") as more:
        more.write("not read, as 8 prompts stand before it\n")
    assert script(search_tree.main, *arguments(folder, short_corpus)) == 0
    said = capsys.readouterr().out
    assert "top-1 by head" in said
    assert re.findall(r"best static tree of +(\d+) nodes", said) == ["8", "16"]
    tree = json.loads((folder / "medusa_tree.json").read_text())
    assert tree["frequency"] == sorted(tree["frequency"], reverse=True) and len(tree["paths"]) == 15
    parsed = read_fitted(folder / "medusa_tree.json", RankTree.parse)
    assert parsed.paths == [tuple(path) for path in tree["paths"]]


def test_heads_that_are_never_right_give_no_tree(short_corpus, tmp_path, monkeypatch, capsys):
    folder = write_merged(tmp_path / "m")
    monkeypatch.setattr("training.tree_search.ranks_of", lambda *about: torch.full((3, 4), 32))
    assert script(search_tree.main, *arguments(folder, short_corpus)) == 2
    assert "never right with any of its --topk 32 guesses" in capsys.readouterr().err
    assert not (folder / "medusa_tree.json").exists()


@pytest.mark.parametrize("front", [search_tree, calibrate])
def test_a_tree_has_no_more_nodes_than_can_be_verified(front, tmp_path, capsys):
    given = ["--model", tmp_path, "--corpus", tmp_path, "--out", tmp_path, "--nodes", 4097]
    assert script(front.main, *given) == 2
    assert "--nodes is 4097; expected at most 4096" in capsys.readouterr().err


def test_steps_pass_over_what_they_guess_right():
    """Half of the answer is easy: 3 tokens a position on average, and 100 in 60 steps."""
    answer = 50 * [[0, 0, 0, 0]] + 50 * [[9, 9, 9, 9]]
    chain = [(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)]
    frequency = [frequency for _, frequency in best_paths(answer, topk=1, limit=4)]
    assert 1 + sum(frequency) == 3
    assert tokens_per_step([answer], chain) == pytest.approx(100 / 60)
    assert tokens_per_step([answer], chain[:1]) == pytest.approx(100 / 75)
    assert tokens_per_step([answer[:2], answer[50:52]], chain) == (5 + 1 + 1) / 3


def test_frequent_paths_by_hand():
    ranks = [[0, 0], [0, 1], [1, 0], [0, 0], [9, 0]]
    assert best_paths(ranks, topk=3, limit=10) == [
        ((0,), 0.6), ((0, 0), 0.4), ((1,), 0.2), ((0, 1), 0.2), ((1, 0), 0.2),
    ]  # fmt: skip


def test_a_rank_counts_the_guesses_before_the_true_token():
    """Of equal logits, the token with the lower id comes first. Ties are common in bfloat16."""
    vocab, ids, start = 6, [1, 2, 3, 4, 5, 0], 2

    class Heads(list):
        def __call__(self, hidden_states):
            # [heads, positions, vocab]: head k's best guess is token 4 - k, all others are equal.
            logits = torch.zeros(2, len(hidden_states), vocab)
            for head in range(2):
                logits[head, :, 4 - head] = 1.0
            return logits

    model = SimpleNamespace(
        heads=Heads([None, None]),
        device=torch.device("cpu"),
        hidden_states_of=lambda text: torch.zeros(1, text.shape[1], 3),
    )
    found = ranks_of(SimpleNamespace(model=model), ids, start)
    # The answer is 3 4 5 0. Head 0 is asked for 4 and 5, head 1 for 5 and 0.
    assert found.tolist() == [[0, 5], [5, 1]]
