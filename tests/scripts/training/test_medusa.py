"""Medusa heads in training."""

import torch

from bench.inputs.loader import load
from decoders.model.heads import MedusaHeads
from tests.helpers.checkpoints import write_base
from tests.helpers.lessons import lesson_of
from training.medusa import heads_loss


def test_heads_learn_the_token_two_places_on(tmp_path):
    """Head 0 of a row guesses what follows the root that the row itself predicts."""
    loaded = load(str(write_base(tmp_path)), device="cpu")
    ids = [1, 5, 6, 7, 8, 2]
    hidden_states = loaded.model.hidden_states_of(torch.tensor([ids]))[0]
    heads = MedusaHeads(2, 32, 101)
    heads.out_weight.data.normal_(generator=torch.Generator().manual_seed(0))
    loss = heads_loss(heads, *lesson_of(loaded, [(ids, 2)], ahead=2))
    logits = heads(hidden_states)
    # Rows 1 to 4 come before the roots 6, 7, 8, 2 of the answer. Head 0 has targets after the
    # first three, head 1 after two.
    expected = [
        torch.nn.functional.cross_entropy(logits[0, 1:4], torch.tensor([7, 8, 2])),
        torch.nn.functional.cross_entropy(logits[1, 1:3], torch.tensor([8, 2])),
    ]
    torch.testing.assert_close(loss, torch.stack(expected))
