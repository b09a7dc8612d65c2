"""Folders with trained heads beside a configuration that names their base model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bench.inputs.checkpoints import BASE, base_of, read_json
from bench.inputs.loader import Loaded

METADATA = {"format": "pt"}  # transformers requires this in a safetensors file.


def saveable(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Copies as safetensors takes them: on the CPU, each with memory of its own."""
    return {
        name: tensor.detach().to("cpu", dtype, copy=True).contiguous()
        for name, tensor in tensors.items()
    }


def write_folder(
    loaded: Loaded,
    folder: Path,
    file: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, object],
) -> None:
    """Write tensors to a file, and a configuration that also names the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {BASE: _base_of(loaded), **config}
    (folder / "config.json").write_text(json.dumps(named, indent=1) + "\n")
    write_tensors(tensors, folder / file)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file beside a config.json, and let the same users read it.

    safetensors makes files that nobody else may read.
    """
    save_file(dict(tensors), path, metadata=METADATA)
    shutil.copymode(path.with_name("config.json"), path)


def _base_of(loaded: Loaded) -> str:
    """The base model of a loaded model, as a config.json in any place can name it."""
    config = read_json(loaded.where, "config.json") or {}
    base = base_of(loaded.where, config) if BASE in config else loaded.where
    return str(Path(base).resolve()) if Path(base).is_dir() else base
