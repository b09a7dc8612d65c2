"""Checkpoints on disk, in every layout that the loader reads."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.helpers.models import tiny_heads, tiny_llama, tiny_tokenizer


def write_base(folder: Path, seed: int = 0, **changes) -> Path:
    """A plain causal LM. `changes`: of its configuration."""
    tiny_llama(seed, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_merged(folder: Path, heads: int = 4, max_shard_size: str = "5GB", **changes) -> Path:
    """A Medusa-2 checkpoint: the model with medusa_head.* beside it.

    It has as many shards as `max_shard_size` asks for. transformers itself writes it, so that its
    index is the real thing.
    """
    lm = tiny_llama(**changes)
    lm.medusa_head = torch.nn.ModuleDict()
    merged = {f"medusa_head.{k}": v.clone() for k, v in tiny_heads(heads).published().items()}
    lm.save_pretrained(folder, state_dict=lm.state_dict() | merged, max_shard_size=max_shard_size)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def write_medusa1(
    folder: Path, base: str, kind: str = "pt", heads: int = 4, vocab: int = 101
) -> str:
    """A Medusa-1 checkpoint: heads alone, in a file of this kind, with the name of their base.

    Its config.json tells a wrong number of heads, as published ones do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"base_model_name_or_path": base, "medusa_num_heads": 2, "medusa_num_layers": 1}
    (folder / "config.json").write_text(json.dumps(config))
    published = tiny_heads(heads, vocab=vocab).published()
    tensors = {name: tensor.clone() for name, tensor in published.items()}
    if kind == "pt":
        torch.save(tensors, folder / "medusa_lm_head.pt")
    else:
        save_file(tensors, folder / "medusa_lm_head.safetensors")
    return str(folder)


class Bomb:
    """Makes a folder where it is unpickled."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
