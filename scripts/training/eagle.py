"""EAGLE's head in training."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.inputs.loader import Loaded
from decoders.eagle.head import FILE, EagleHead
from settings.training import HeadsSettings
from training.batches import Lesson
from training.columns import Columns
from training.head_files import saveable, write_folder
from training.kind import Kind


class EagleKind(Kind):
    ignored_settings = ("heads", "layers", "share_projection", "decay", "merge", "format")
    loss_names = "loss of features and of tokens"
    ahead = 1
    shares_projection = True

    def __init__(self, loaded: Loaded, settings: HeadsSettings) -> None:
        torch.manual_seed(settings.seed)
        self.loaded = loaded
        self.heads = EagleHead(loaded.model)
        self.heads.to(loaded.model.lm.get_output_embeddings().weight.device)
        self.loss_weights = [1.0, 0.1]  # The paper's.
        self.title = "EAGLE's head"

    def losses(self, lesson: Lesson, columns: Columns) -> Tensor:
        return head_losses(self.loaded, self.heads, lesson, columns, autocast=True)

    def write(self, out: Path, dtype: torch.dtype) -> Path:
        folder = out / "eagle"
        write_folder(self.loaded, folder, FILE, saveable(self.heads.published(), dtype), {})
        return folder


def head_losses(
    loaded: Loaded, head: EagleHead, lesson: Lesson, columns: Columns, autocast: bool = False
) -> Tensor:
    """Mean losses [2] over the answers' positions of one batch: of features, and of tokens.

    The first compares the next feature with the guessed one (smooth L1). The second is the
    cross-entropy of the base model's own distribution of the token after it. 0 where no row has
    a target. columns: what that distribution is over. autocast: whether products are made in
    bfloat16.
    """
    model = loaded.model
    with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
        features = lesson.hidden_states.float()
        inputs = head.inputs(features[:, :-1], model.embed(lesson.ids[:, 1:]))
        guessed = head.layer(inputs_embeds=inputs).last_hidden_state
        has_target = lesson.shifted(lesson.is_answer, 2)
        guess = lesson.shifted(guessed, 0)[has_target].float()
        truth = lesson.shifted(features, 1)[has_target]
    of_tokens = columns.of_distributions(guess, truth, model.logit_scale)
    of_features = F.smooth_l1_loss(guess, truth, reduction="sum") / max(1, guess.numel())
    return torch.stack((of_features, of_tokens))
