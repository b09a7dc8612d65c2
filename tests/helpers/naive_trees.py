"""Compares the trees of decoders with a beam with those that the papers' methods grow, naively."""

from collections.abc import Callable

import pytest
from torch import Tensor

from decoders.accept import Threshold
from decoders.acceptance import Typical
from decoders.beam import BeamDecoder
from tests.helpers.drafters import Path, naive_beam, paths_of
from tests.helpers.models import PROMPT
from tests.helpers.steps import turn

# Random heads are hardly ever right. This rule keeps some of their guesses all the same.
EASY = Threshold(1.0, Typical(0.003, 0.003))


def compare_trees(
    decoder: BeamDecoder,
    naive: Callable[[list[int], int], Callable[[Path], Tensor]],
    tokens: int,
) -> None:
    """Decode some tokens, and assert that each tree is the one that `naive_beam` grows.

    naive: of the text so far and the root, the logits after a path.
    """
    options = decoder.nodes, decoder.topk, decoder.beam, decoder.max_depth
    text, accepted = PROMPT.tolist(), set()
    for step in decoder.decode(*turn(tokens, EASY)):
        logits_of = naive(text, int(step.draft.token[0]))
        expected, found = naive_beam(logits_of, *options), paths_of(step.draft)
        assert list(found) == list(expected)
        assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-3)
        text += step.tokens
        accepted.add(len(step.tokens))
    assert len(accepted) > 1  # Some steps kept more than others.
