"""Token Recycling, against its rule in plain Python."""

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.model.model import Rows, Verified
from decoders.recycling import SUCCESSORS, Recycling, published_paths
from decoders.step import Stop
from decoders.tree import NO_GUESS, Draft, Tree
from tests.helpers.models import PROMPT, tiny_llama
from tests.helpers.watching import paths_of, watched_turn

# The paper's tree by level, each node as the ranks on its path.
LEVELS = (
    "0 1 2 3 4 5 6 7",
    "00 01 02 03 04 05 06 07 10 11 12 13 20 21 22 30 31 40 50 60 70",
    "000 001 002 003 004 005 006 007 010 011 012 020 021 030 040 050 060 070 100 101 110 200 300 "
    "400 500",
    "0000 0001 0002 0003 0004 0010 0011 0020 0030 0040 0100 0200 1000 2000 3000",
    "00000 00001 00002 00010 00020 00100 01000 10000",
    "000000 000001 000100",
)
PUBLISHED = [tuple(map(int, path)) for level in LEVELS for path in level.split()]
FOREVER = Stop(frozenset(), 60)


def bound(model: Engine, **options) -> Recycling:
    decoder = Recycling(**options)
    decoder.setup(model)
    return decoder


def best(logits: torch.Tensor) -> list[int]:
    values = logits.tolist()
    return sorted(range(len(values)), key=lambda token: -values[token])[:SUCCESSORS]


def test_the_tree_is_the_published_one():
    assert published_paths(Recycling.nodes) == PUBLISHED
    assert Recycling().nodes == 1 + len(PUBLISHED) == 81


@pytest.mark.parametrize("nodes", range(1, Recycling.nodes))
def test_a_smaller_tree_is_a_part_of_every_larger_one(nodes):
    paths, larger = published_paths(nodes), published_paths(nodes + 1)
    assert len(paths) == nodes - 1 and set(paths) < set(larger)
    assert all(path[:-1] in {(), *paths} for path in paths)


@pytest.mark.parametrize("temperature", [0, 0.8])
@pytest.mark.parametrize("nodes", [Recycling.nodes, 16, 2])
@pytest.mark.parametrize("vocab", [101, 5])
def test_a_draft_is_read_from_the_latest_successors_of_each_token(nodes, vocab, temperature):
    rule = Sample(temperature, seed=3) if temperature else Exact()
    model = Engine(tiny_llama(vocab_size=vocab))
    prompt = [token % vocab for token in PROMPT.tolist()]
    diary = watched_turn(bound(model, nodes=nodes), prompt, rule, FOREVER)
    successors = {prompt[-1]: best(diary.first.logits[-1])}

    def token_at(path: tuple[int, ...], root: int) -> int:
        token = root
        for rank in path:
            known = successors.get(token, [])
            if rank >= len(known):
                return NO_GUESS
            token = known[rank]
        return token

    for number, draft in enumerate(diary.proposed):
        root = int(draft.token[0])
        expected = [token_at(path, root) for path in [(), *published_paths(nodes)]]
        assert draft.token.tolist() == expected
        if number < len(diary.verified):
            verified = diary.verified[number]
            for token, row in zip(verified.draft.token.tolist(), verified.logits, strict=True):
                if token != NO_GUESS:
                    successors[token] = best(row)
    if nodes > 2:
        assert max(len(step.tokens) for step in diary.steps) > 1


def test_of_a_token_that_stands_twice_the_last_node_counts(tiny_model):
    decoder = bound(tiny_model)
    decoder.start(torch.tensor([1]), Rows(torch.zeros(1, 32), torch.zeros(1, 101)))
    draft = Draft(Tree.from_parent([0, 0, 1, 1]), torch.tensor([4, 9, 4, NO_GUESS]))
    logits = torch.eye(101)[[20, 21, 22, 23]]
    decoder.observe(draft, Verified(torch.zeros(4, 32), logits, draft), torch.tensor([0]))
    guesses = [decoder.propose(torch.tensor([root]), None).token[1].item() for root in (4, 9, 5)]
    assert guesses == [22, 21, NO_GUESS]


def drafts_of(decoder: Recycling, prompt: list[int]) -> list[dict]:
    return [paths_of(draft) for draft in watched_turn(decoder, prompt, Exact(), FOREVER).proposed]


def test_the_matrix_lasts_for_a_conversation_and_no_longer(tiny_model):
    prompt, other = PROMPT.tolist(), PROMPT.flip(0).tolist()
    second = [*prompt, 17, 18, 19]
    alone, alone_second = (drafts_of(bound(tiny_model), each) for each in (prompt, second))
    decoder = bound(tiny_model)
    assert drafts_of(decoder, prompt) == alone
    assert drafts_of(decoder, second) != alone_second
    drafts_of(decoder, other)
    assert drafts_of(decoder, prompt) == alone


def test_on_request_it_lasts_for_ever(tiny_model):
    prompt, other = PROMPT.tolist(), PROMPT.flip(0).tolist()
    decoder = bound(tiny_model, keep=True)
    drafts_of(decoder, prompt)
    learned = decoder.matrix[:, 0] != NO_GUESS
    drafts_of(decoder, other)
    assert (decoder.matrix[learned, 0] != NO_GUESS).all()
    decoder.forget()
    assert (decoder.matrix == NO_GUESS).all()


def test_there_is_no_larger_tree():
    with pytest.raises(ValueError, match="nodes is 82; the published tree has 81"):
        Recycling(nodes=82)
