import pytest
import torch
from torch.nn import functional as F

from decoders.best_nodes import NO_SCORE
from decoders.conditional.successors import SLOTS, Successors
from decoders.tree import NO_GUESS

K = 3


def table(vocab: int = 101, weight: tuple = (0.0, 1.0, 1.0, 1.0), floor: float = 1.0) -> Successors:
    return Successors(vocab, K, weight, floor, torch.device("cpu"))


def row(*likeliest: int, vocab: int = 101) -> torch.Tensor:
    """Logits [1, vocab] of which these tokens are the likeliest, in that order."""
    logits = torch.zeros(1, vocab)
    logits[0, list(likeliest)] = torch.arange(len(likeliest), 0, -1).float() + 1
    return logits


def ids(*tokens: int) -> torch.Tensor:
    return torch.tensor(tokens)


def test_the_successors_of_a_pair_before_those_of_its_last_token_before_none():
    found = table()
    found.learn(ids(5), ids(7), row(1, 2, 3))
    pair, single, nothing = (found.after(ids(a), ids(b)) for a, b in ((5, 7), (6, 7), (5, 8)))
    assert pair.token.tolist() == single.token.tolist() == [[1, 2, 3]]
    assert [each.evidence.item() for each in (pair, single, nothing)] == [2, 1, 0]
    assert nothing.bonus.eq(NO_SCORE).all() and nothing.token.eq(-1).all()


def test_a_later_row_replaces_an_earlier_one_and_of_equal_ones_the_first_counts():
    found = table()
    found.learn(ids(5), ids(7), row(1, 2, 3))
    found.learn(ids(6, 6), ids(7, 7), torch.cat((row(4, 5, 6), row(7, 8, 9))))
    assert found.after(ids(6), ids(7)).token.tolist() == [[4, 5, 6]]
    assert found.after(ids(1), ids(7)).token.tolist() == [[4, 5, 6]]  # By the token alone.
    assert found.after(ids(5), ids(7)).token.tolist() == [[1, 2, 3]]  # Another pair.
    found.forget()
    assert found.after(ids(5, 6), ids(7, 7)).evidence.tolist() == [0, 0]


def test_pairs_that_share_a_place_are_not_taken_for_each_other():
    vocab = SLOTS + 20  # So that (0, x) and (1, x - 20) share a place.
    found = Successors(vocab, 1, (0, 1, 1, 1), 1.0, torch.device("cpu"))
    says = {token: F.one_hot(ids(token), vocab).float() for token in (3, 4)}
    found.learn(ids(0), ids(30), says[3])
    assert found.after(ids(1), ids(10)).evidence.tolist() == [0]
    found.learn(ids(1), ids(10), says[4])
    assert found.after(ids(1), ids(10)).token.tolist() == [[4]]
    # The first pair was pushed out. Its last token alone is still known.
    assert found.after(ids(0), ids(30)).evidence.tolist() == [1]


def test_without_pairs_only_the_last_token_counts():
    found = Successors(101, K, (0, 1, 1, 1), 1.0, torch.device("cpu"), pairs=False)
    found.learn(ids(5), ids(7), row(1, 2, 3))
    assert found.after(ids(5), ids(7)).evidence.tolist() == [1]


def test_a_bonus_is_the_weighted_log_of_one_plus_p_over_the_floor():
    found = table(weight=(0.0, 0.5, 2.0, 3.0), floor=0.1)
    logits = torch.randn(1, 101, generator=torch.Generator().manual_seed(1))
    found.learn(ids(5), ids(7), logits)
    prob = logits.softmax(-1).topk(K).values
    torch.testing.assert_close(found.after(ids(5), ids(7)).bonus, 2.0 * torch.log1p(prob / 0.1))
    torch.testing.assert_close(found.after(ids(9), ids(7)).bonus, 0.5 * torch.log1p(prob / 0.1))
    found.learn(ids(5), ids(7), logits)
    torch.testing.assert_close(found.after(ids(5), ids(7)).bonus, 3.0 * torch.log1p(prob / 0.1))


def test_a_pair_is_confirmed_by_saying_the_same_again_and_no_more_by_something_else():
    found = table()
    evidence = []
    for said in (1, 1, 1, 2, 1):
        found.learn(ids(5), ids(7), row(said, 3, 4))
        evidence.append(found.after(ids(5), ids(7)).evidence.item())
    assert evidence == [2, 3, 3, 2, 2]
    found.forget()
    # The pair (5, 7) itself, twice in one go.
    found.learn(ids(5, 6, 5), ids(7, 7, 7), torch.cat((row(1, 3, 4), row(1, 3, 4), row(1, 3, 4))))
    assert found.after(ids(5, 6), ids(7, 7)).evidence.tolist() == [3, 2]


def test_a_long_prompt_is_learned_from_its_beginning_on():
    """What is said later stands, also where the prompt is learned in several pieces."""
    found = table()
    rows = 600
    said = torch.cat([row(9, 3, 4), *(row(1, 3, 4) for _ in range(rows - 1))])
    found.learn(torch.full((rows,), 5), torch.full((rows,), 7), said)
    assert found.after(ids(5), ids(7)).token.tolist() == [[9, 3, 4]]


@pytest.mark.parametrize("before", [0, 5, 100])
def test_what_is_no_guess_teaches_nothing(before):
    found = table()
    found.learn(ids(before), ids(NO_GUESS), row(1, 2, 3))
    grid = torch.cartesian_prod(torch.arange(101), torch.arange(101))
    assert found.after(*grid.unbind(1)).evidence.eq(0).all()


@pytest.mark.parametrize("tokens", [1, 2, 256, 257, 258, 600])
def test_a_text_is_learned_as_its_rows_are(tokens):
    """In the same groups of rows, so that the same successors are confirmed."""
    text = torch.arange(tokens).mul(7).remainder(11)
    logits = torch.randn(tokens, 101, generator=torch.Generator().manual_seed(0))
    by_text, by_rows = (table() for _ in range(2))
    by_text.learn_text(text, logits)
    by_rows.learn(text.roll(1).flip(0)[:-1], text.flip(0)[:-1], logits.flip(0)[:-1])
    for name in ("_pair", "_claim", "_token", "_bonus", "_evidence"):
        assert torch.equal(getattr(by_text, name), getattr(by_rows, name)), name
