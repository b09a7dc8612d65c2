"""Guessing from the frequent tokens alone."""

import pytest
import torch

from decoders.accept import Exact
from decoders.draft_vocabulary import read_vocabulary
from decoders.loop import Stop
from tests.helpers.models import PROMPT
from tests.helpers.steps import bound, steps_of, tokens_of


@pytest.fixture
def model(tiny_model):
    tiny_model.frequent = [
        *range(0, 90, 2),
        *range(1, 31, 2),
    ]  # 60 of 101, so the last 15 give way to the prompt's own
    return tiny_model


def test_narrowed_heads_give_the_logits_of_those_tokens(model):
    tokens, hidden = torch.tensor([7, 3, 50]), torch.randn(1, 32)
    narrow = model.heads.narrowed(tokens)
    torch.testing.assert_close(model.guess(hidden, 2, narrow), model.guess(hidden, 2)[:, tokens])


def test_only_frequent_tokens_and_the_prompts_own_are_guessed(model):
    own = set(PROMPT.tolist()) - set(model.frequent[:45])
    steps = steps_of(model, "dynamic:nodes=64:topk=16:vocab=frequent", 60)
    drafted = {token for step in steps for token in step.draft.token[1:].tolist()}
    others = [token for token in model.frequent[45:] if token not in own][: 15 - len(own)]
    assert drafted <= set(model.frequent[:45]) | own | set(others)
    assert drafted & (own - set(model.frequent))
    assert tokens_of(steps) == tokens_of(steps_of(model, "greedy", 60))


def test_guesses_are_the_best_among_them(model):
    """By hand: the full heads' logits, what is not there left out."""
    decoder = bound(model, "dynamic:nodes=5:depth=1:topk=4:vocab=frequent")
    list(decoder.decode(PROMPT, *exactly(1)))
    there = decoder.vocabulary.tokens
    hidden = torch.randn(1, 32)
    best = there[model.guess(hidden, 1)[0, there].topk(4).indices]
    assert decoder.propose(torch.tensor([9]), hidden).token.tolist() == [9, *best.tolist()]


def exactly(tokens):
    return Exact(), Stop(frozenset(), tokens)


@pytest.mark.parametrize("name", ["dynamic", "conditional"])
def test_a_prompt_is_forgotten_with_its_turn(model, name):
    decoder = bound(model, f"{name}:nodes=8:vocab=frequent")
    list(decoder.decode(PROMPT, *exactly(3)))
    assert set(PROMPT.tolist()) <= set(decoder.vocabulary.tokens.tolist())
    list(decoder.decode(torch.tensor([2, 4, 6]), *exactly(3)))
    assert decoder.vocabulary.tokens.tolist() == model.frequent
    assert decoder.vocabulary.heads.out_weight.equal(model.heads.out_weight[:, model.frequent])


@pytest.mark.parametrize("name", ["dynamic", "conditional"])
def test_auto_takes_the_frequent_tokens_where_they_are_known(model, name):
    assert bound(model, f"{name}:nodes=auto", (1.0,) * 12).vocabulary.tokens is not None
    assert bound(model, f"{name}:nodes=auto:vocab=all", (1.0,) * 12).vocabulary.tokens is None
    assert bound(model, name).vocabulary.tokens is None
    model.frequent = None
    assert bound(model, f"{name}:nodes=auto", (1.0,) * 12).vocabulary.tokens is None
    with pytest.raises(ValueError, match=r"not known; scripts/draft_vocabulary\.py"):
        bound(model, f"{name}:vocab=frequent")
    model.frequent = [1, 2, 3]
    with pytest.raises(ValueError, match="draft vocabulary has 3 tokens"):
        bound(model, f"{name}:vocab=frequent")
    with pytest.raises(ValueError, match="available: all, frequent"):
        bound(model, f"{name}:vocab=most")


def test_without_heads_there_is_nothing_to_guess_from(model):
    assert bound(model, "conditional:nodes=auto:heads=false", (1.0,) * 12).vocabulary.tokens is None
    with pytest.raises(ValueError, match="with heads=false leave it out"):
        bound(model, "conditional:heads=false:vocab=all")
    model.heads = None
    with pytest.raises(ValueError, match="no Medusa heads that could guess"):
        bound(model, "conditional:vocab=frequent")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"tokens": [1, 2, 1]}', "a token stands twice"),
        ('{"tokens": [1, 11]}', "'11' is not a token of a vocabulary of 11"),
        ('{"tokens": [true]}', "'True' is not a token"),
        ('{"tokens": []}', "non-empty list"),
        ("[1, 2]", "expected an object"),
        ("[" * 100_000, "not a draft vocabulary"),
        ("{", "not a draft vocabulary"),
    ],
)
def test_a_damaged_vocabulary_is_named(content, says, tmp_path):
    (tmp_path / "v.json").write_text(content)
    with pytest.raises(ValueError, match=says):
        read_vocabulary(tmp_path / "v.json", 11)
