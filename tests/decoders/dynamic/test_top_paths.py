import pytest
import torch

from decoders.dynamic.top_paths import universe
from tests.helpers.trees import brute_force, chosen_paths

SPREAD = {"flat": 0.01, "random": 2.0, "peaked": 12.0}


def guesses(kind: str, depth: int, topk: int, seed: int) -> torch.Tensor:
    """Log probabilities [depth, topk], each row descending."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(depth, topk, generator=generator) * SPREAD.get(kind, 1.0)
    if kind == "one-hot":
        # The softmax underflows to exactly 1, 0, 0, ... The published code fails with KeyError.
        logits = torch.full((depth, topk), -200.0)
        logits[:, 0] = 0.0
    if kind == "tied":
        logits = torch.zeros(depth, topk)
    if kind == "half tied":
        logits = (torch.randn(depth, topk, generator=generator) * 1.5).round()
    if kind == "impossible":  # Tokens that the model excludes altogether.
        logits[:, topk // 2 :] = float("-inf")
    return logits.sort(-1, descending=True).values.log_softmax(-1)


@pytest.mark.parametrize(
    "kind", ["random", "flat", "peaked", "one-hot", "tied", "half tied", "impossible"]
)
@pytest.mark.parametrize(
    ("depth", "topk", "nodes"),
    [(1, 8, 5), (2, 12, 64), (3, 8, 31), (4, 6, 64), (5, 4, 100), (6, 3, 256)],
)
def test_the_same_trees_as_the_cartesian_product(kind, depth, topk, nodes):
    for seed in range(3):
        log_prob = guesses(kind, depth, topk, seed)
        assert chosen_paths(log_prob, nodes) == brute_force(log_prob, nodes)


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("nodes", [2, 3, 16, 64, 256])
def test_every_depth_and_size_gives_a_tree(depth, nodes):
    paths = chosen_paths(guesses("random", depth, 32, seed=7), nodes)
    possible = sum(32**d for d in range(1, depth + 1))
    assert len(paths) == min(nodes - 1, possible)
    assert len(set(paths)) == len(paths)


def test_no_tuple_outside_the_universe_can_be_chosen():
    """Its size for 64 nodes is the published count, the root included."""
    assert len(universe(64, 32, 4)) == 1 + 1338
    assert len(universe(2, 32, 4)) == 2
