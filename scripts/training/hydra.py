"""Hydra heads in training."""

from pathlib import Path

import torch
from torch import Tensor

from bench.inputs.loader import Loaded
from decoders.hydra.heads import FILE, HydraHeads
from settings.training import HeadsSettings
from training.batches import Lesson
from training.columns import Columns, of_logits
from training.head_files import saveable, write_folder
from training.kind import Kind


class HydraKind(Kind):
    ignored_settings = ("merge", "format")

    def __init__(self, loaded: Loaded, settings: HeadsSettings) -> None:
        self.loaded = loaded
        self.settings = settings
        self.heads = starting_heads(
            loaded, settings.heads, settings.layers, settings.share_projection, settings.seed
        )
        self.ahead = settings.heads
        self.shares_projection = settings.share_projection
        self.loss_weights = [settings.decay**head for head in range(settings.heads)]
        self.title = f"{settings.heads} Hydra heads"

    def losses(self, lesson: Lesson, columns: Columns | None) -> Tensor:
        return heads_loss(self.loaded, self.heads, lesson, columns, autocast=True)

    def write(self, out: Path, dtype: torch.dtype) -> Path:
        folder = out / "hydra"
        config = {
            "hydra_num_heads": len(self.heads),
            "hydra_num_layers": self.settings.layers,
            "hydra_head_arch": "mlp",
            "grounded_heads": True,
            "hidden_state_offset": 0,
        }
        write_folder(self.loaded, folder, FILE, saveable(self.heads.published(), dtype), config)
        return folder


def heads_loss(
    loaded: Loaded,
    heads: HydraHeads,
    lesson: Lesson,
    columns: Columns | None,
    autocast: bool = False,
) -> Tensor:
    """Mean cross-entropy [heads] over the answers' positions of one batch.

    Each head is given the true tokens before its own. 0 where a head has no target at all.
    columns: of the projection that heads share. None: they have their own. autocast: whether
    products are made in bfloat16.
    """
    losses = []
    with torch.autocast(loaded.model.device.type, torch.bfloat16, enabled=autocast):
        embeddings = loaded.model.embed(lesson.ids).float().to(lesson.ids.device)
        inputs = lesson.shifted(lesson.hidden_states, 0).float()
        for head in range(len(heads)):
            inputs = torch.cat((inputs, lesson.shifted(embeddings, head + 1)), -1)
            x, targets = heads.blocks(head, inputs), lesson.targets(head + 2)
            if heads.shares_projection:
                losses.append(columns.of_tokens(x, targets))
            else:
                losses.append(of_logits(heads.projections(x, head), targets))
    return torch.stack(losses)


def starting_heads(
    loaded: Loaded, heads: int, layers: int, share_projection: bool, seed: int
) -> HydraHeads:
    """Heads that pass on the hidden state alone, followed by the model's output projection.

    share_projection: True: all heads share that projection. False: each head trains a copy of it.
    """
    torch.manual_seed(seed)
    projection = loaded.model.lm.get_output_embeddings()
    made = HydraHeads(loaded.model, heads, layers, share_projection)
    with torch.no_grad():
        for first, *others in made.hydra_mlp:
            for block in (first, *others):
                block.linear.weight.zero_()
                block.linear.bias.zero_()
            first.res_connection.weight.zero_()
            first.res_connection.bias.zero_()
            first.res_connection.weight[:, : loaded.model.hidden].fill_diagonal_(1.0)
        for own in made.hydra_lm_head or ():
            own.weight.copy_(projection.weight)
            own.bias.zero_()
    return made.to(projection.weight.device)
