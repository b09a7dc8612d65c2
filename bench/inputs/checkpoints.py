"""The layouts of checkpoints: which file holds what, in a folder or on the hub.

    Medusa-1   config.json that names base_model_name_or_path (a folder relative to this one, or a
               hub id), and medusa_lm_head.safetensors or .pt
    Hydra etc. the same with the file that another decoder needs (`Decoder.weights`)
    Medusa-2   an ordinary checkpoint with medusa_head.* tensors beside the model's, in one file or
               in shards, or with a file of heads beside the model's files
    any other  an ordinary checkpoint of a causal LM

`where` is always the folder or hub id of a checkpoint. Pickles are read as tensors alone.
"""

from collections.abc import Collection
from pathlib import Path

from huggingface_hub.errors import GatedRepoError
from torch import Tensor
from transformers.utils import cached_file

from bench.common.errors import UserError
from bench.common.files import read_document, shown
from bench.common.strict_json import parse_json
from bench.inputs.spelling import DEMO
from bench.inputs.tensor_files import PICKLES, read_tensors, refuse_differing
from decoders.model.heads import MERGED_PREFIX

BASE = "base_model_name_or_path"  # The entry of config.json that makes it a Medusa-1 checkpoint.
# The last is vLLM's, in a folder whose config names a base model.
HEAD_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "model.safetensors")
OWN_HEAD_FILES = HEAD_FILES[:2]  # Those that hold heads alone.
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# A model's weights, in the order in which transformers looks for them.
WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (WHOLE_FILES[0], INDEX_FILES[0], WHOLE_FILES[1], INDEX_FILES[1])


def find(where: str, filename: str) -> str | None:
    """The path of a checkpoint's file, fetched from the hub where need be. None: no such file."""
    return cached_file(
        where,
        filename,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )


def find_weights(where: str, filename: str) -> str | None:
    """As `find`, for a file of tensors that may also be there as a pickle (PICKLES).

    UserError where a folder holds it as both, and they differ.
    """
    names = [filename, *(str(Path(filename).with_suffix(suffix)) for suffix in PICKLES)]
    refuse_differing(where, names)
    return next((path for name in names if (path := find(where, name))), None)


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
        _refuse_gated(where)
        raise UserError(
            f"no model at {where!r}: expected {DEMO!r}, a folder with config.json, or a hub id in "
            "reach"
        )
    return config


def _refuse_gated(where: str) -> None:
    """UserError where a hub id is of a model whose licence must be accepted first."""
    try:
        cached_file(
            where,
            "config.json",
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError as error:
        if not isinstance(error.__cause__, GatedRepoError):
            raise
        raise UserError(
            f"{where!r} is a gated model: accept its licence on its page of the hub, log in here "
            "with hf auth login (or set HF_TOKEN), and try again"
        ) from error


def base_of(where: str, config: dict) -> str:
    """The folder, GGUF file or hub id of a Medusa-1 checkpoint's base model.

    UserError where it has none.
    """
    base = config[BASE]
    if not isinstance(base, str) or not base:
        raise UserError(f"config.json of {where!r} names no base model: {BASE} is {shown(base)}")
    beside = Path(where) / base
    if beside.is_dir() or (beside.is_file() and beside.suffix == ".gguf"):
        return str(beside)
    is_path = base.startswith((".", "~")) or "\\" in base or base.count("/") > 1
    if is_path or Path(base).is_absolute():
        raise UserError(
            f"the base model of {where!r}, {base!r}, is not a folder; correct its config.json"
        )
    return base


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


def file_of_heads(where: str) -> str | None:
    """The name of the file of heads in a folder or on a hub. None: there is none."""
    return next((name for name in OWN_HEAD_FILES if find(where, name)), None)


def read_separate_heads(where: str, others: Collection[str]) -> dict[str, Tensor] | None:
    """Medusa-1: the heads' tensors, under their published names.

    others: names of files with other kinds of heads. None: there is one of these alone. UserError
    where there is no file of heads, or where there are two that differ.
    """
    refuse_differing(where, OWN_HEAD_FILES)
    paths = (find(where, name) for name in HEAD_FILES)
    path = next((path for path in paths if path), None)
    if path is not None:
        return read_tensors(path)
    if any(find_weights(where, name) for name in others):
        return None
    raise UserError(
        f"{where!r} names a base model but has no heads: expected "
        f"{' or '.join([*HEAD_FILES, *others])}"
    )


def read_merged_heads(where: str, names: set[str]) -> dict[str, Tensor]:
    """Medusa-2: the heads' tensors `names`, under their published names. Shards are read, too.

    UserError where a shard is missing.
    """
    source = next((name for name in WEIGHT_FILES if find(where, name)), None)
    shards = {source} if source else set()
    if source in INDEX_FILES:
        index = read_index(where)
        shards = {index[name] for name in names if name in index}
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        path = find(where, shard)
        if path is None:
            raise UserError(f"{where!r} lacks {shard}, which its index names")
        tensors |= read_tensors(path, names)
    return {name.removeprefix(MERGED_PREFIX): tensor for name, tensor in tensors.items()}


def short_name(model: str) -> str:
    """A model's name in tables and file names, from its folder, file or hub id.

    A folder in the hub's cache has the name of its repository. The folder's own is a commit.

    >>> short_name("org/tiny"), short_name("hub/models--org--tiny/snapshots/0123")
    ('tiny', 'tiny')
    """
    path = Path(model)
    if path.is_file():  # Where it is a link, the name of its target may be a digest.
        return path.name
    path = path.resolve()
    repository = path.parents[1].name if len(path.parts) > 2 else ""
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.rpartition("--")[2]
    return path.name
