"""Medusa heads in training: batches, the loss, starting weights, and files."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from bench.inputs.checkpoints import BASE, HEAD_FILES
from bench.inputs.head_layouts import (
    SHARED,
    VLLM_FILE,
    VLLM_SHARED,
    to_vllm,
    vllm_config,
)
from bench.inputs.loader import Loaded
from decoders.model.heads import MERGED_PREFIX, MedusaHeads
from training.corpus import Example

CHUNK = 1024  # Examples within which rows of like length are put together.
NO_TARGET = -100  # A label that the loss leaves out.
METADATA = {"format": "pt"}  # transformers requires this in a safetensors file.


def batches(examples: list[Example], batch_tokens: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of about `batch_tokens` tokens with padding. `seed` fixes their order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        # Sorting within large shuffled chunks keeps a batch's rows alike in length, and the batches
        # random.
        order = torch.randperm(len(examples), generator=generator).tolist()
        groups = []
        for start in range(0, len(order), CHUNK):
            chunk = sorted((examples[at] for at in order[start : start + CHUNK]), key=_length)
            groups += _cut(chunk, batch_tokens)
        for at in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[at]


def _length(example: Example) -> int:
    return len(example[0])


def _cut(ascending: list[Example], batch_tokens: int) -> list[list[Example]]:
    """Examples of ascending length, cut into groups of at most `batch_tokens` with padding."""
    groups: list[list[Example]] = [[]]
    for example in ascending:
        if groups[-1] and (len(groups[-1]) + 1) * _length(example) > batch_tokens:
            groups.append([])
        groups[-1].append(example)
    return groups


def heads_loss(
    loaded: Loaded, heads: MedusaHeads, group: list[Example], autocast: bool = False
) -> Tensor:
    """Mean cross-entropy [heads] over the answers' positions of one batch.

    NaN where a head has no target at all. autocast: whether products are made in bfloat16.
    """
    device = loaded.model.device
    # So long that every head has a target at every row, which may be absent.
    longest = max(map(_length, group)) + len(heads)
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    is_answer = torch.zeros(len(group), longest, dtype=torch.bool)
    for row, (tokens, start) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        is_answer[row, start : len(tokens)] = True
    ids, is_answer = ids.to(device), is_answer.to(device)
    width = longest - len(heads) - 1
    # A row is used where the root that follows it is in the answer.
    is_used = is_answer[:, 1 : 1 + width]
    with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
        # [batch, length, hidden]. Nothing attends to the padding, which stands on the right.
        hidden_states = loaded.model.hidden_states_of(ids)
        logits = heads(hidden_states[:, :width][is_used].float())  # [heads, rows, vocab]
    losses = []
    for head, head_logits in enumerate(logits):
        ahead = slice(head + 2, head + 2 + width)
        target = ids[:, ahead].masked_fill(~is_answer[:, ahead], NO_TARGET)[is_used]
        losses.append(F.cross_entropy(head_logits.float(), target, ignore_index=NO_TARGET))
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
    if shapes == {name: tensor.shape for name, tensor in made.state_dict().items()}:
        made.load_state_dict(own)
    elif not share_projection:
        with torch.no_grad():
            made.out_weight.copy_(projection.weight.expand_as(made.out_weight))
    return made.float()


def write_heads(
    heads: MedusaHeads,
    loaded: Loaded,
    base: str,
    out: Path,
    dtype: torch.dtype,
    format: str = "medusa",
) -> None:
    """Write the heads, and a configuration that names the base model.

    base: its name. format: "medusa", a Medusa-1 folder, or "vllm", which has names of its own.
    """
    out.mkdir(parents=True, exist_ok=True)
    if Path(base).is_dir():
        base = str(Path(base).resolve())
    tensors, file, config = _tensors(heads, dtype), HEAD_FILES[0], {BASE: base, **_config(heads)}
    if format == "vllm":
        tensors, file = to_vllm(tensors, len(heads.block_weight)), VLLM_FILE
        config |= vllm_config(heads, loaded.model.vocab)
        if heads.shares_projection:  # vLLM reads it from this file.
            projection = loaded.model.lm.get_output_embeddings().weight
            tensors[VLLM_SHARED] = projection.detach().to(dtype).cpu().contiguous()
    save_file(tensors, out / file, metadata=METADATA)
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_merged(loaded: Loaded, heads: MedusaHeads, out: Path, dtype: torch.dtype) -> None:
    """Write a Medusa-2 folder: the model and its heads in one checkpoint."""
    out.mkdir(parents=True, exist_ok=True)
    lm = loaded.model.lm
    lm.config.update({**_config(heads), "dtype": str(dtype).removeprefix("torch.")})
    lm.config.save_pretrained(out)
    loaded.generation_config.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
    state = lm.state_dict()
    # Tied tensors are written once, under the name that comes first.
    names = {tensor.data_ptr(): name for name, tensor in reversed(state.items())}.values()
    merged = {name: state[name].to(dtype).cpu().contiguous() for name in names}
    merged |= {MERGED_PREFIX + name: each for name, each in _tensors(heads, dtype).items()}
    save_file(merged, out / "model.safetensors", metadata=METADATA)


def _tensors(heads: MedusaHeads, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: each.to(dtype).cpu().contiguous() for name, each in heads.published().items()}


def _config(heads: MedusaHeads) -> dict[str, object]:
    config = {"medusa_num_heads": len(heads), "medusa_num_layers": len(heads.block_weight)}
    return config | ({SHARED: True} if heads.shares_projection else {})
