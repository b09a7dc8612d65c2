"""Guessing from the frequent tokens alone."""

import json

import pytest
import torch
from torch import nn

from decoders.accept import Exact
from decoders.draft_vocabulary import FILE, parse_vocabulary
from decoders.model.projection import Projections
from tests.helpers.drafters import paths_of
from tests.helpers.models import PROMPT
from tests.helpers.steps import FREE, bound, made, steps_of, tokens_of, turn

# 60 of 101 tokens. The last 15 give way to the prompt's own.
FREQUENT = [*range(0, 90, 2), *range(1, 31, 2)]
FILES = {FILE: FREQUENT}


def test_narrowed_heads_give_the_logits_of_those_tokens(tiny_model):
    tokens, hidden_state = torch.tensor([7, 3, 50]), torch.randn(1, 32)
    narrow = tiny_model.draft_logits(hidden_state, 2, tiny_model.heads.narrowed(tokens))
    torch.testing.assert_close(narrow, tiny_model.draft_logits(hidden_state, 2)[:, tokens])


def test_only_frequent_tokens_and_the_prompts_own_are_guessed(tiny_model):
    own = set(PROMPT.tolist()) - set(FREQUENT[:45])
    steps = steps_of(tiny_model, "dynamic:nodes=64:topk=16:vocab=frequent", 60, files=FILES)
    drafted = {token for step in steps for token in step.draft.token[1:].tolist()}
    others = [token for token in FREQUENT[45:] if token not in own][: 15 - len(own)]
    assert drafted <= set(FREQUENT[:45]) | own | set(others)
    assert drafted & (own - set(FREQUENT))
    assert tokens_of(steps) == tokens_of(steps_of(tiny_model, "greedy", 60))


def test_guesses_are_the_best_among_them(tiny_model):
    """By hand: the full heads' logits, without the tokens that are not there."""
    decoder = bound(tiny_model, "dynamic:nodes=5:depth=1:topk=4:vocab=frequent", files=FILES)
    list(decoder.decode(*turn(1, Exact())))
    there = decoder.vocabulary.tokens
    hidden_state = torch.randn(1, 32)
    best = there[tiny_model.draft_logits(hidden_state, 1)[0, there].topk(4).indices]
    draft = decoder.propose(torch.tensor([9]), hidden_state)
    assert draft.token.tolist() == [9, *best.tolist()]


@pytest.mark.parametrize("name", ["eagle", "hydra"])
@pytest.mark.parametrize("static_shapes", [False, True])
def test_drafters_with_weights_of_their_own_guess_from_them_too(tiny_model, name, static_shapes):
    """Their trees are those of projections whose other logits are -inf."""
    tiny_model.static_shapes = static_shapes
    spec = f"{name}:nodes=12:topk=4:beam=3"
    narrow = bound(tiny_model, f"{spec}:vocab=frequent", files=FILES)
    steps = list(narrow.decode(*turn(40, Exact())))
    there = narrow.vocabulary.tokens
    assert set(PROMPT.tolist()) <= set(there.tolist()) and len(there) == len(FREQUENT)
    whole = bound(tiny_model, spec)
    guesser, outside = whole.vocabulary.guesser, torch.full((101,), -torch.inf)
    outside[there] = 0.0
    whole.vocabulary.guesser = lambda *given: guesser(*given) + outside
    for ours, masked in zip(steps, whole.decode(*turn(40, Exact())), strict=True):
        assert paths_of(ours.draft) == pytest.approx(paths_of(masked.draft), abs=1e-4)
    assert tokens_of(steps) == tokens_of(steps_of(tiny_model, "greedy", 40))


@pytest.mark.parametrize("name", ["eagle", "hydra"])
def test_a_path_names_the_weights_alone(name):
    """The frequent tokens are beside the model all the same."""
    decoder = made(f"{name}:path=/x/weights.safetensors")
    (weights,) = decoder.weights
    assert decoder.path_of(weights) == "/x/weights.safetensors"
    assert decoder.path_of(FILE) is None


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_narrowed_projections_give_the_logits_of_those_tokens(has_bias, heads):
    whole = Projections([nn.Linear(8, 20, bias=has_bias) for _ in range(heads)])
    tokens, x = torch.tensor([7, 3, 15]), torch.randn(2, 8)
    with torch.no_grad():
        narrow = whole.narrowed(tokens)
        torch.testing.assert_close(narrow(x, heads - 1), whole(x, heads - 1)[:, tokens])
        tokens[1:] = torch.tensor([0, 19])
        whole.renarrow(narrow, slice(1, None), tokens[1:])
        torch.testing.assert_close(narrow(x, heads - 1), whole(x, heads - 1)[:, tokens])


@pytest.mark.parametrize("name", ["dynamic", "conditional"])
def test_a_prompt_is_forgotten_with_its_turn(tiny_model, name):
    decoder = bound(tiny_model, f"{name}:nodes=8:vocab=frequent", files=FILES)
    list(decoder.decode(*turn(3, Exact())))
    assert set(PROMPT.tolist()) <= set(decoder.vocabulary.tokens.tolist())
    _, rule, stop = turn(3, Exact())
    list(decoder.decode(torch.tensor([2, 4, 6]), rule, stop))
    assert decoder.vocabulary.tokens.tolist() == FREQUENT
    expected = tiny_model.heads.out_weight[:, FREQUENT]
    assert decoder.vocabulary.guesser.out_weight.equal(expected)


@pytest.mark.parametrize("name", ["dynamic", "conditional", "eagle", "hydra"])
def test_auto_takes_the_frequent_tokens_where_they_are_known(tiny_model, name):
    def tokens(spec, files):
        return bound(tiny_model, spec, FREE, files).inner.vocabulary.tokens

    assert tokens(f"{name}:nodes=auto", FILES) is not None
    assert tokens(f"{name}:nodes=auto:vocab=all", FILES) is None
    assert bound(tiny_model, name, files=FILES).vocabulary.tokens is None
    assert tokens(f"{name}:nodes=auto", {}) is None


@pytest.mark.parametrize("name", ["dynamic", "conditional", "eagle", "hydra"])
def test_frequent_tokens_that_do_not_fit_say_why(tiny_model, name):
    with pytest.raises(ValueError, match=r"not known; scripts/draft_vocabulary\.py"):
        bound(tiny_model, f"{name}:vocab=frequent")
    with pytest.raises(ValueError, match="draft vocabulary has 3 tokens"):
        bound(tiny_model, f"{name}:vocab=frequent", files={FILE: [1, 2, 3]})
    with pytest.raises(ValueError, match="available: all, frequent"):
        bound(tiny_model, f"{name}:vocab=most")
    foreign = {FILE: [*range(40), 101]}
    with pytest.raises(ValueError, match="token 101, which is not a token of a vocabulary of 101"):
        bound(tiny_model, f"{name}:vocab=frequent", files=foreign)
    # Nor does `auto` take them silently.
    with pytest.raises(ValueError, match="token 101, which is not a token of a vocabulary of 101"):
        bound(tiny_model, f"{name}:nodes=auto", FREE, foreign)


def test_without_heads_there_is_nothing_to_guess_from(tiny_model):
    decoder = bound(tiny_model, "conditional:nodes=auto:heads=false", FREE, FILES)
    assert decoder.inner.vocabulary.tokens is None
    with pytest.raises(ValueError, match="with heads=false leave it out"):
        bound(tiny_model, "conditional:heads=false:vocab=all")
    tiny_model.heads = None
    with pytest.raises(ValueError, match="no Medusa heads that could guess"):
        bound(tiny_model, "conditional:vocab=frequent", files=FILES)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"tokens": [1, 2, 1]}', "a token stands twice"),
        ('{"tokens": [true]}', "'True' is not a token"),
        ('{"tokens": [-1]}', "'-1' is not a token"),
        ('{"tokens": [1.0]}', "'1.0' is not a token"),
        ('{"tokens": [2147483648]}', "'2147483648' is not a token"),
        ('{"tokens": []}', "non-empty list"),
        ('{"tokens": 3}', "non-empty list"),
        ("[1, 2]", "expected an object"),
    ],
)
def test_what_is_no_vocabulary_says_why(content, says):
    with pytest.raises(ValueError, match=f"^not a draft vocabulary: .*{says}"):
        parse_vocabulary(json.loads(content))
