"""Hydra heads in training."""

import torch
from torch.nn import functional as F

from bench.inputs.loader import load
from decoders.hydra.heads import HydraHeads
from tests.helpers.checkpoints import write_base
from tests.helpers.drafters import hydra_tensors, naive_hydra
from tests.helpers.lessons import lesson_of
from training.hydra import heads_loss, starting_heads


def test_each_head_learns_the_token_after_the_true_ones_before_it(tmp_path):
    loaded = load(str(write_base(tmp_path)), device="cpu")
    ids = [1, 5, 6, 7, 8, 2]
    tensors = hydra_tensors(heads=2)
    heads = HydraHeads.from_published(tensors, loaded.model)
    loss = heads_loss(loaded, heads, *lesson_of(loaded, [(ids, 2)], ahead=2))
    # Rows 1 to 4 come before the roots 6, 7, 8, 2 of the answer. Head 0 has targets after the
    # first three, head 1 after two.
    after = [naive_hydra(loaded.model, tensors, ids[: row + 1], ids[row + 1]) for row in range(4)]
    first = torch.stack([after[row](()) for row in (1, 2, 3)])
    second = torch.stack([after[row]((ids[row + 2],)) for row in (1, 2)])
    expected = [
        F.cross_entropy(first, torch.tensor([7, 8, 2])),
        F.cross_entropy(second, torch.tensor([8, 2])),
    ]
    torch.testing.assert_close(loss, torch.stack(expected), rtol=1e-4, atol=1e-4)


def test_training_begins_with_the_base_models_own_guess(tmp_path):
    """Whatever the tokens before: the blocks pass on the hidden state alone."""
    loaded = load(str(write_base(tmp_path)), device="cpu")
    inputs = torch.randn(3, 4 * 32, generator=torch.Generator().manual_seed(0))
    for share_projection in (False, True):
        heads = starting_heads(loaded, 3, 2, share_projection, seed=0)
        expected = loaded.model.project(inputs[:, :32])
        torch.testing.assert_close(heads(2, inputs), expected, rtol=1e-4, atol=1e-4)
