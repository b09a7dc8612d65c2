"""Medusa heads in training."""

import torch

from bench.inputs.loader import load
from decoders.model.heads import MedusaHeads
from tests.helpers.checkpoints import write_base, write_merged
from tests.helpers.lessons import lesson_of
from tests.helpers.models import tiny_heads
from training.medusa import heads_loss, starting_heads


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


def test_heads_that_a_model_has_are_trained_further_where_they_have_the_shape(tmp_path):
    loaded = load(str(write_merged(tmp_path)), device="cpu")
    torch.testing.assert_close(starting_heads(loaded, 4, 1).out_weight, tiny_heads().out_weight)
    fewer = starting_heads(loaded, 3, 1)
    assert not fewer.block_weight.any()
    assert fewer.out_weight[2].equal(loaded.model.lm.get_output_embeddings().weight)
