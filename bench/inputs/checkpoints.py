"""The layouts of checkpoints: which file holds what, in a folder or on the hub.

    Medusa-1   config.json that names base_model_name_or_path (a folder relative to this one, or a
               hub id), and medusa_lm_head.safetensors or .pt
    Medusa-2   an ordinary checkpoint with medusa_head.* tensors beside the model's, in one file or
               in shards
    any other  an ordinary checkpoint of a causal LM

`where` is always the folder or hub id of a checkpoint. Pickles are read as tensors alone.
"""

from hashlib import sha256
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from bench.common.errors import UserError
from bench.common.files import parse_json, read_document, shown
from bench.inputs.bounds import check_layers, check_sizes, check_zip, tensor_names
from decoders.model.heads import MERGED_PREFIX

DEMO = "demo"
BASE = "base_model_name_or_path"  # The entry of config.json that makes it a Medusa-1 checkpoint.
# The last is vLLM's, in a folder whose config names a base model.
HEAD_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "model.safetensors")
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (WHOLE_FILES[0], INDEX_FILES[0], WHOLE_FILES[1], INDEX_FILES[1])
SAMPLE_BYTES = 1 << 20  # Bytes of each end of a file that go into the identity of a folder.


def find(where: str, filename: str) -> str | None:
    """The path of a checkpoint's file, fetched from the hub where need be. None: no such file."""
    return cached_file(
        where,
        filename,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )


def read_json(where: str, filename: str) -> dict | None:
    """The object of a JSON file. None: no such file. UserError where it is damaged."""
    path = find(where, filename)
    if path is None:
        return None
    try:
        content = parse_json(read_document(Path(path)))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


def read_config(where: str) -> dict:
    """config.json. UserError where there is none."""
    config = read_json(where, "config.json")
    if config is None:
        raise UserError(
            f"no model at {where!r}: expected {DEMO!r}, a folder with config.json, or a hub id in "
            "reach"
        )
    return config


def base_of(where: str, config: dict) -> str:
    """The folder or hub id of a Medusa-1 checkpoint's base model. UserError where it has none."""
    base = config[BASE]
    if not isinstance(base, str) or not base:
        raise UserError(f"config.json of {where!r} names no base model: {BASE} is {shown(base)}")
    beside = Path(where) / base
    if beside.is_dir():
        return str(beside)
    if Path(base).is_absolute() or base.startswith("."):
        raise UserError(
            f"the base model of {where!r}, {base!r}, is not a folder; correct its config.json"
        )
    return base


def check_config(where: str) -> None:
    """UserError where config.json asks for more layers than the checkpoint can have.

    Also where a pickle of weights is compressed, or an index names files outside the checkpoint.
    """
    index = read_index(where)
    names = sorted(set(index.values())) or [name for name in WHOLE_FILES if find(where, name)][:1]
    paths = [Path(path) for path in (find(where, name) for name in names) if path]
    for path in paths:
        if path.suffix != ".safetensors":
            check_zip(path)
    check_layers(where, read_config(where), list(index) or tensor_names(paths))


def check_weights_exist(where: str) -> None:
    """UserError where a folder has no weights. A hub id is not checked."""
    if Path(where).is_dir() and not any((Path(where) / name).exists() for name in WEIGHT_FILES):
        raise UserError(
            f"the folder {where!r} has no weights: expected {' or '.join(WEIGHT_FILES)}"
        )


def read_index(where: str) -> dict[str, str]:
    """Name of a tensor -> its file, for a sharded checkpoint. Empty: it is not sharded.

    UserError where a file would lie outside the checkpoint.
    """
    for filename in INDEX_FILES:
        index = read_json(where, filename)
        if not index:
            continue
        weight_map = index.get("weight_map")
        is_map = isinstance(weight_map, dict)
        if not is_map or not all(isinstance(file, str) for file in weight_map.values()):
            raise UserError(f"{filename} of {where!r} has no weight_map of tensors to files")
        for file in sorted(set(weight_map.values())):
            if Path(file).name != file:
                raise UserError(
                    f"{filename} of {where!r} names {shown(file)}; expected a file beside it"
                )
        return weight_map
    return {}


def read_tensors(path: str) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a pickle that holds nothing else."""
    if path.endswith(".safetensors"):
        return load_file(path)
    check_zip(Path(path))
    content = torch.load(path, map_location="cpu", weights_only=True)
    is_named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not is_named or not all(map(_is_dense, content.values())):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a dictionary of named dense tensors"
        )
    check_sizes(Path(path), content.values())
    return content


def _is_dense(value: object) -> bool:
    is_here = isinstance(value, Tensor) and not value.is_meta
    return is_here and value.layout == torch.strided


def read_separate_heads(where: str) -> dict[str, Tensor]:
    """Medusa-1: the heads' tensors, under their published names. UserError where there are none."""
    paths = (find(where, name) for name in HEAD_FILES)
    path = next((path for path in paths if path), None)
    if path is None:
        raise UserError(
            f"{where!r} names a base model but has no heads: expected {' or '.join(HEAD_FILES)}"
        )
    return read_tensors(path)


def read_merged_heads(where: str, names: set[str]) -> dict[str, Tensor]:
    """Medusa-2: the heads' tensors `names`, under their published names. Shards are read, too.

    UserError where a shard is missing.
    """
    index = read_index(where)
    if index:
        shards = {index[name] for name in names if name in index}
    else:
        shards = {name for name in WHOLE_FILES if find(where, name)}
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        path = find(where, shard)
        if path is None:
            raise UserError(f"{where!r} lacks {shard}, which its index names")
        if shard.endswith(".safetensors"):
            with safe_open(path, "pt") as opened:
                wanted = names.intersection(opened.keys())
                tensors |= {name: opened.get_tensor(name) for name in wanted}
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensors |= {name: content[name] for name in names.intersection(content)}
    return {name.removeprefix(MERGED_PREFIX): tensor for name, tensor in tensors.items()}


def identity_of(where: str) -> str:
    """An identity of a model's files: the commit on a hub, or a digest of a folder or a file.

    The digest covers the name, the size and both ends of every file. So a checkpoint of many GB
    need not be read a second time.
    """
    if Path(where).is_dir():
        paths = sorted(path for path in Path(where).iterdir() if path.is_file())
    elif Path(where).is_file():
        paths = [Path(where)]
    else:
        return extract_commit_hash(find(where, "config.json"), None) or where
    digest = sha256()
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as content:
            ends = content.read(SAMPLE_BYTES)
            content.seek(max(0, size - SAMPLE_BYTES))
            ends += content.read(SAMPLE_BYTES)
        digest.update(f"{path.name} {size} {sha256(ends).hexdigest()}\n".encode())
    return digest.hexdigest()
