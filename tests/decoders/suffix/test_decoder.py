"""Drafts from the text so far, against a search through all of it."""

import pytest
import torch

from decoders.accept import Exact, Sample
from decoders.engine.engine import Engine
from decoders.greedy import Greedy
from decoders.step import Stop
from decoders.suffix.decoder import Suffix
from decoders.tree import NO_GUESS
from tests.helpers.models import PROMPT, tiny_llama
from tests.helpers.steps import tokens_of
from tests.helpers.texts import matches
from tests.helpers.watching import paths_of, watched_turn

FOREVER = Stop(frozenset(), 90)


def bound(model: Engine, **options) -> Suffix:
    decoder = Suffix(**options)
    decoder.setup(model)
    return decoder


def expected_paths(text: list[int], nodes: int, width: int) -> set[tuple[int, ...]]:
    paths = {()}
    for length, end in matches(text)[:width]:
        deepest = nodes if width == 1 else 2 + 2 * length
        longer = list(text)  # What is drafted may be copied in its turn.
        for depth in range(deepest):
            longer.append(longer[end + depth])
            path = tuple(longer[len(text) :])
            if path not in paths and len(paths) == nodes:
                break
            paths.add(path)
    return paths


@pytest.mark.parametrize("static_shapes", [False, True])
@pytest.mark.parametrize("rule", [Exact(), Sample(0.8, seed=3)])
@pytest.mark.parametrize(("nodes", "width"), [(1, 1), (1, 3), (12, 1), (12, 2), (9, 4), (64, 8)])
def test_a_draft_follows_the_longest_suffixes(nodes, width, rule, static_shapes):
    model = Engine(tiny_llama(vocab_size=11))
    model.static_shapes = static_shapes
    prompt = (PROMPT % 11).tolist()
    diary = watched_turn(bound(model, nodes=nodes, width=width), prompt, rule, FOREVER)
    kept, answer = [len(step.tokens) for step in diary.steps], tokens_of(diary.steps)
    root = 0  # Index in the answer.
    for draft, count in zip(diary.proposed, kept, strict=False):
        paths = [path for path in paths_of(draft) if NO_GUESS not in path]
        assert set(paths) == expected_paths([*prompt, *answer[: root + 1]], nodes, width)
        root += count
        if static_shapes:
            assert len(draft.tree) == nodes and draft.tree.max_depth == nodes - 1
        else:
            assert len(draft.tree) == len(paths)
    greedy = Greedy()
    greedy.setup(model)
    assert answer == tokens_of(list(greedy.decode(torch.tensor(prompt), rule, FOREVER)))
    if nodes > 1:
        assert max(kept) > 1


def test_a_text_without_repetition_drafts_nothing():
    decoder = bound(Engine(tiny_llama()))
    decoder.start(torch.tensor([5, 6, 7]), None)
    assert len(decoder.propose(torch.tensor([8]), None).tree) == 1


def test_a_width_below_one_is_refused():
    with pytest.raises(ValueError, match="width is 0; it must be at least 1"):
        Suffix(width=0)
