"""EAGLE's head in training."""

import pytest
import torch
from torch.nn import functional as F

from bench.inputs.loader import load
from decoders.eagle.head import EagleHead
from tests.helpers.checkpoints import write_base
from tests.helpers.drafters import eagle_tensors, naive_layer
from tests.helpers.lessons import lesson_of
from training.eagle import head_losses


@pytest.mark.parametrize("scale", [1.0, 0.125])
def test_the_head_learns_the_next_feature_and_the_base_models_distribution(tmp_path, scale):
    loaded = load(str(write_base(tmp_path)), device="cpu")
    loaded.model.logit_scale = scale
    model, ids, tensors = loaded.model, [1, 5, 6, 7, 8, 2], eagle_tensors()
    head = EagleHead.from_published(tensors, model)
    losses = head_losses(loaded, head, *lesson_of(loaded, [(ids, 2)], ahead=1))
    features = model.hidden_states_of(torch.tensor([ids]))[0]
    pairs = torch.cat((model.embed(torch.tensor(ids[1:])), features[:-1]), -1)
    guessed = naive_layer(tensors, pairs @ tensors["fc.weight"].T + tensors["fc.bias"])
    # Rows 1 to 3 come before the roots 6, 7, 8 of the answer, after which it goes on.
    guess, truth = guessed[1:4], features[2:5]
    wanted, log_prob = model.project(truth).softmax(-1), model.project(guess).log_softmax(-1)
    expected = [F.smooth_l1_loss(guess, truth), -(wanted * log_prob).sum(-1).mean()]
    torch.testing.assert_close(losses, torch.stack(expected), rtol=1e-4, atol=1e-4)
