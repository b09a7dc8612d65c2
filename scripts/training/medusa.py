"""Medusa heads in training: the loss, starting weights, and files."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from bench.inputs.checkpoints import HEAD_FILES, OWN_HEAD_FILES
from bench.inputs.head_layouts import SHARED, VLLM_FILE, VLLM_SHARED, to_vllm, vllm_config
from bench.inputs.loader import Loaded
from decoders.model.heads import MERGED_PREFIX, MedusaHeads
from settings.training import HeadsSettings
from training.batches import Lesson
from training.columns import Columns, of_logits
from training.head_files import (
    saveable,
    write_folder,
    write_generation_config,
    write_tensors,
)
from training.kind import Kind


class MedusaKind(Kind):
    def __init__(self, loaded: Loaded, settings: HeadsSettings) -> None:
        self.loaded = loaded
        self.settings = settings
        self.heads = starting_heads(
            loaded, settings.heads, settings.layers, settings.share_projection
        )
        self.ahead = settings.heads
        self.shares_projection = settings.share_projection
        self.loss_weights = [settings.decay**head for head in range(settings.heads)]
        self.title = f"{settings.heads} heads"

    def losses(self, lesson: Lesson, columns: Columns | None) -> Tensor:
        return heads_loss(self.heads, lesson, columns, autocast=True)

    def write(self, out: Path, dtype: torch.dtype) -> Path:
        folder = out / ("merged" if self.settings.merge else "medusa")
        if self.settings.merge:
            write_merged(self.loaded, self.heads, folder, dtype)
        else:
            write_heads(self.heads, self.loaded, folder, dtype, self.settings.format)
        return folder


def heads_loss(
    heads: MedusaHeads, lesson: Lesson, columns: Columns | None, autocast: bool = False
) -> Tensor:
    """Mean cross-entropy [heads] over the answers' positions of one batch.

    0 where a head has no target at all. columns: of the projection that heads share. None: they
    have their own. autocast: whether products are made in bfloat16.
    """
    losses = []
    with torch.autocast(lesson.ids.device.type, torch.bfloat16, enabled=autocast):
        x = heads.blocks(lesson.shifted(lesson.hidden_states, 0).float())  # [heads, rows, hidden]
        logits = None if heads.shares_projection else heads.project(x)
    for head in range(len(heads)):
        targets = lesson.targets(head + 2)
        if logits is None:
            losses.append(columns.of_tokens(x[head], targets))
        else:
            losses.append(of_logits(logits[head], targets))
    return torch.stack(losses)


def starting_heads(
    loaded: Loaded, heads: int, layers: int, share_projection: bool = False
) -> MedusaHeads:
    """Heads to train: the model's own where they have this shape.

    Otherwise, residual blocks of zeros, followed by the model's output projection.
    share_projection: True: all heads share that projection. False: each head trains a copy of it.
    """
    projection = loaded.model.lm.get_output_embeddings()
    vocab, hidden = projection.weight.shape
    shared = projection if share_projection else None
    made = MedusaHeads(heads, hidden, vocab, layers, shared).to(projection.weight.device)
    own = loaded.model.heads.state_dict() if loaded.model.heads is not None else {}
    shapes = {name: tensor.shape for name, tensor in own.items()}
    begins = "new heads: those of the model are of another number or shape"
    if shapes == {name: tensor.shape for name, tensor in made.state_dict().items()}:
        made.load_state_dict(own)
        begins = "the model's own heads"
    elif not share_projection:
        with torch.no_grad():
            made.out_weight.copy_(projection.weight.expand_as(made.out_weight))
    if own:
        print(f"the training begins with {begins}", file=sys.stderr)
    return made.float()


def write_heads(
    heads: MedusaHeads,
    loaded: Loaded,
    out: Path,
    dtype: torch.dtype,
    format: str = "medusa",
) -> None:
    """Write the heads, and a configuration that names the base model.

    format: "medusa", a Medusa-1 folder, or "vllm", which has names of its own.
    """
    tensors, file, config = saveable(heads.published(), dtype), HEAD_FILES[0], _config(heads)
    if format == "vllm":
        tensors, file = to_vllm(tensors, len(heads.block_weight)), VLLM_FILE
        config |= vllm_config(heads, loaded.model.vocab)
        if heads.shares_projection:  # vLLM reads it from this file.
            projection = loaded.model.lm.get_output_embeddings().weight
            tensors |= saveable({VLLM_SHARED: projection}, dtype)
    write_folder(loaded, out, file, tensors, config)
    if format == "vllm":
        for name in OWN_HEAD_FILES:  # Of an earlier session. They would be read instead.
            (out / name).unlink(missing_ok=True)


def write_merged(loaded: Loaded, heads: MedusaHeads, out: Path, dtype: torch.dtype) -> None:
    """Write a Medusa-2 folder: the model and its heads in one checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    lm = loaded.model.lm
    state = lm.state_dict()
    # Tied tensors are written once, under the name that comes first.
    names = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}.values()
    state = {name: state[name] for name in names}
    state |= {MERGED_PREFIX + name: tensor for name, tensor in heads.published().items()}
    write_tensors(saveable(state, dtype), out / "model.safetensors")
    loaded.tokenizer.save_pretrained(out)
    write_generation_config(loaded.generation_config, out)
    lm.config.update({**_config(heads), "dtype": str(dtype).removeprefix("torch.")})
    lm.config.save_pretrained(out)


def _config(heads: MedusaHeads) -> dict[str, object]:
    config = {"medusa_num_heads": len(heads), "medusa_num_layers": len(heads.block_weight)}
    return config | ({SHARED: True} if heads.shares_projection else {})
