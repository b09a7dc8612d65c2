"""The text of a turn, brought to the host."""

import torch

from decoders.kept_tokens import KeptTokens
from decoders.tree import Draft, Tree


def ids(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


def test_every_kept_token_is_given_once():
    """Also where steps drafted nothing, and were not asked about."""
    kept = KeptTokens()
    assert kept.new(ids(3)) == [3]
    draft = Draft(Tree.from_parent([0, 0, 1, 1]), ids(3, 5, 6, 7))
    kept.observe(draft, ids(3))
    assert kept.new(ids(8)) == [5, 7, 8]
    kept.observe(Draft.of_root(ids(8)), ids(0))
    kept.observe(Draft.of_root(ids(9)), ids(0))
    kept.observe(Draft(Tree.from_parent([0, 0, 1, 1]), ids(10, 11, 12, 13)), ids(1))
    assert kept.new(ids(14)) == [9, 10, 11, 14]
    kept = KeptTokens()
    kept.observe(Draft.of_root(ids(20)), ids(0))
    assert kept.new(ids(21)) == [20, 21]
