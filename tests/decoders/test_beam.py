"""Trees that grow level by level."""

from functools import partial

import pytest
import torch

from decoders.beam import Beam
from decoders.draft_check import check_draft
from decoders.engine.engine import Engine
from tests.helpers.drafters import naive_beam, paths_of
from tests.helpers.models import tiny_llama
from tests.helpers.steps import made

VOCAB = 11
ROOT = torch.tensor([7])


def logits_after(path: tuple[int, ...], seed: int) -> torch.Tensor:
    """Random logits [VOCAB] that the path alone decides."""
    generator = torch.Generator().manual_seed(hash((seed, *path)) % (1 << 40))
    return 2 * torch.randn(VOCAB, generator=generator)


def grown(search: Beam, seed: int, depth: int):
    """The draft where every path's logits are `logits_after` it."""
    paths: list[tuple[int, ...]] = []

    def logits_of(parent, token):
        nonlocal paths
        if paths:
            found = zip(parent.tolist(), token.tolist(), strict=True)
            paths = [(*paths[above], each) for above, each in found]
        else:
            paths = [()]  # The root's own.
        return torch.stack([logits_after(path, seed) for path in paths])

    return search.grow(ROOT, logits_of, depth)


@pytest.fixture(scope="module")
def model() -> Engine:
    return Engine(tiny_llama(vocab_size=VOCAB))


@pytest.mark.parametrize("nodes", [2, 3, 8, 30, 200])
@pytest.mark.parametrize(("topk", "beam"), [(1, 1), (3, 2), (2, 5), (11, 4)])
def test_the_tree_is_the_naive_searchs(model, nodes, topk, beam):
    search = Beam(nodes, topk, beam, 4, model)
    for seed in range(4):
        after = partial(logits_after, seed=seed)
        for depth in (1, 2, 4):
            draft = grown(search, seed, depth)
            expected = naive_beam(after, nodes, topk, beam, depth)
            found = paths_of(draft)
            assert list(found) == list(expected)
            assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-4)
            assert draft.token[0] == ROOT and draft.tree.max_depth == min(depth, nodes - 1)


def test_certain_guesses_and_no_numbers_still_make_a_tree(model):
    """A child may be as likely as its parent. A NaN rules its node's children out, no more."""
    decoder = made("hydra:nodes=9:topk=3:beam=2:depth=3")
    decoder.model, decoder.search = model, Beam(9, 3, 2, 3, model)
    for value in (float("nan"), float("inf"), 1e4):
        logits = torch.zeros(VOCAB)
        logits[3] = value
        after = partial(lambda logits, _, token: logits.repeat(len(token), 1), logits)
        draft = decoder.search.grow(ROOT, after, 3)
        check_draft(draft, ROOT, decoder)
        assert draft.log_prob.isfinite().all()


def test_a_lone_root_asks_for_no_guess(model):
    draft = Beam(1, 3, 2, 4, model).grow(ROOT, None, 4)
    assert draft.token.equal(ROOT) and draft.tree.max_depth == 0


def test_options_that_make_no_tree(model):
    for option in ("topk", "beam", "depth"):
        with pytest.raises(ValueError, match=f"{option} is 0; it must be at least 1"):
            made(f"eagle:{option}=0")
    with pytest.raises(ValueError, match="topk is 12, but the vocabulary has 11 tokens"):
        Beam(4, 12, 1, 1, model)
