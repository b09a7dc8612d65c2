"""Losses over some columns of the output projection."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from training import columns
from training.batches import NO_TARGET
from training.columns import ColumnChoice, of_logits

VOCAB, HIDDEN, ROWS = 60, 8, 12
# Token 7 is the most frequent one, then 3, then 9.
EXAMPLES = [([1, 7, 7, 7, 3, 3, 9], 1)]


@pytest.fixture
def projection():
    torch.manual_seed(0)
    return nn.Linear(HIDDEN, VOCAB).requires_grad_(False)


@pytest.fixture
def rows():
    torch.manual_seed(1)
    return torch.randn(ROWS, HIDDEN, requires_grad=True)


def choice(projection, sampled):
    return ColumnChoice(projection, EXAMPLES, sampled, seed=0, dtype=torch.float32)


def gradient(loss, of):
    return torch.autograd.grad(loss, of)[0]


@pytest.mark.parametrize("at_once", [1, 5 * VOCAB, 1 << 22])
def test_all_columns_give_the_cross_entropy_and_its_gradient(
    projection, rows, monkeypatch, at_once
):
    monkeypatch.setattr(columns, "CPU_LOGITS", at_once)
    target = torch.arange(ROWS) * 5
    target[2] = NO_TARGET
    everything = choice(projection, None).of_batch(target, step=0)
    loss = everything.of_tokens(rows, target)
    expected = F.cross_entropy(projection(rows), target)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(3 * loss, rows), gradient(3 * expected, rows))

    truth = torch.randn(ROWS, HIDDEN)
    loss = everything.of_distributions(rows, truth)
    expected = F.cross_entropy(projection(rows), projection(truth).softmax(-1))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient(loss, rows), gradient(expected, rows))


def test_no_target_is_no_loss(projection, rows):
    target = torch.full((ROWS,), NO_TARGET)
    columns = choice(projection, None).of_batch(target, step=0)
    for loss in (columns.of_tokens(rows, target), of_logits(projection(rows), target)):
        assert loss == 0 and not gradient(loss, rows).any()


def test_a_loss_of_logits_is_the_mean_over_rows_with_a_target(projection, rows):
    logits, target = projection(rows), torch.arange(ROWS)
    target[::3] = NO_TARGET
    expected = F.cross_entropy(logits[target != NO_TARGET], target[target != NO_TARGET])
    torch.testing.assert_close(of_logits(logits, target), expected)


def test_a_sample_has_the_frequent_tokens_and_others_drawn_anew(projection):
    sampling = choice(projection, 12)
    ids = torch.tensor([[50, 51, 9]])
    first, again, next_step = (sampling.of_batch(ids, step) for step in (0, 0, 1))

    def tokens(found):
        return {token for token in range(VOCAB) if found.column[token] < len(found.weight)}

    assert len(tokens(first)) == 14 and tokens(first) == tokens(again) != tokens(next_step)
    assert {7, 3, 9, 50, 51} <= tokens(first) & tokens(next_step)
    for token in (50, 51):  # They are in the batch, and stand for themselves.
        torch.testing.assert_close(first.bias[first.column[token]], projection.bias[token])
    # 51 others, without the two true ones: 49 tokens, for which 3 stand.
    token = next(iter(tokens(first) - tokens(next_step)))
    stands_for = first.bias[first.column[token]] - projection.bias[token]
    assert stands_for.exp().item() == pytest.approx(49 / 3)
    torch.testing.assert_close(first.bias[first.column[7]], projection.bias[7])


def test_a_sampled_loss_is_the_whole_one_on_average(projection, rows):
    """Also where the true token is rare."""
    sampling, target = choice(projection, 24), torch.tensor([7, 3, 9, 50, 51, 7] * 2)
    losses, gradients = [], []
    for step in range(400):
        loss = sampling.of_batch(target, step).of_tokens(rows, target)
        losses.append(loss.detach())
        gradients.append(gradient(loss, rows))
    whole = F.cross_entropy(projection(rows), target)
    assert torch.stack(losses).mean().item() == pytest.approx(whole.item(), rel=0.02)
    mean, wanted = torch.stack(gradients).mean(0), gradient(whole, rows)
    assert F.cosine_similarity(mean.flatten(), wanted.flatten(), dim=0) > 0.99


def test_a_sampled_loss_with_distributions_knows_the_rare_tokens_of_the_batch(projection):
    """Without them, a target that is sure of such a token became one that is unsure of others."""
    answers = torch.tensor([50, 51, 52, 53] * 3)
    projection.weight[50:54] = 3 * torch.eye(4, HIDDEN)
    truth = projection.weight[answers].clone()
    probability = projection(truth).softmax(-1).gather(1, answers.unsqueeze(1))
    assert probability.min() > 0.9
    x = truth + 0.1 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    sampling, losses, gradients = choice(projection, 24), [], []
    for step in range(400):
        loss = sampling.of_batch(answers, step).of_distributions(x, truth)
        losses.append(loss.detach())
        gradients.append(gradient(loss, x))
    whole = F.cross_entropy(projection(x), projection(truth).softmax(-1))
    assert torch.stack(losses).mean().item() == pytest.approx(whole.item(), rel=0.2)
    mean, wanted = torch.stack(gradients).mean(0), gradient(whole, x)
    assert F.cosine_similarity(mean.flatten(), wanted.flatten(), dim=0) > 0.9
