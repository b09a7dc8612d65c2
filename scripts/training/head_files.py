"""Folders with trained heads beside a configuration that names their base model."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig

from bench.common.errors import UserError
from bench.common.files import write_atomically
from bench.inputs.checkpoints import BASE, base_of, read_json
from bench.inputs.loader import Loaded

METADATA = {"format": "pt"}  # transformers requires this in a safetensors file.


def refuse_own_folder(loaded: Loaded, out: Path) -> None:
    """UserError where `out` is a folder of the model itself, whose files are its identity."""
    folders = [Path(each).resolve() for each in (loaded.where, _base_of(loaded))]
    if out.resolve() in [each.parent if each.is_file() else each for each in folders]:
        raise UserError(
            f"{out} is the model's own folder, and files in it would make it another model; give "
            "another --out"
        )


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
    """Write tensors to a file, and then a configuration that also names the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    named = {BASE: _base_of(loaded), **config}
    write_tensors(tensors, folder / file)
    write_atomically(folder / "config.json", json.dumps(named, indent=1) + "\n")


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Replace a safetensors file. An interruption leaves the earlier one as it is."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)  # An interruption may have left it.
    temporary.touch()
    mode = temporary.stat().st_mode
    save_file(dict(tensors), temporary, metadata=METADATA)
    temporary.chmod(mode)  # safetensors makes files that nobody else may read.
    temporary.replace(path)


def write_generation_config(config: GenerationConfig, folder: Path) -> None:
    """Write a generation configuration as it was read.

    Its own `save_pretrained` refuses some that are published, such as a temperature without
    sampling.
    """
    config.to_json_file(folder / "generation_config.json", keys_to_pop=["compile_config"])


def _base_of(loaded: Loaded) -> str:
    """The base model of a loaded model, as a config.json in any place can name it."""
    config = read_json(loaded.where, "config.json") or {}
    base = base_of(loaded.where, config) if BASE in config else loaded.base
    return str(Path(base).resolve()) if Path(base).exists() else base
