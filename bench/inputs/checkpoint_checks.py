"""Refuses checkpoints that are not the model that the user means, or that cannot be one."""

import re
from collections.abc import Iterator
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import shown
from bench.inputs.bounds import check_layers, check_zip, tensor_names
from bench.inputs.checkpoints import (
    BASE,
    OWN_HEAD_FILES,
    WEIGHT_FILES,
    WHOLE_FILES,
    file_of_heads,
    find,
    read_config,
    read_index,
    read_json,
)
from bench.inputs.head_layouts import unwrapped
from decoders.model.heads import MERGED_PREFIX

ADAPTER_FILE = "adapter_config.json"
HEADS_ONLY = "medusa"  # The model_type of a configuration that is about heads alone, as in vLLM.
# Git LFS leaves a small pointer file in place of a large one: its beginning, and its most bytes.
POINTER, LONGEST_POINTER = b"version https://git-lfs", 1024
# Names of files of tokenizers, which transformers knows by class.
_OF_TOKENIZER = re.compile(r"token|tekken|vocab|merges|spiece|sentencepiece|bpe")


def refuse_pointers(where: str) -> None:
    """UserError where a file of a folder is only a pointer, as Git writes it without its LFS."""
    files = sorted(Path(where).iterdir()) if Path(where).is_dir() else []
    for path in files:
        is_short = path.is_file() and path.stat().st_size <= LONGEST_POINTER
        if is_short and path.read_bytes().startswith(POINTER):
            raise UserError(
                f"{path} is a pointer to a file in Git LFS, and not the file; fetch it with git "
                "lfs pull"
            )


def check_tokenizer_exists(where: str) -> None:
    """UserError where a folder has no file of a tokenizer. A hub id is not looked at."""
    if not Path(where).is_dir():
        return
    if not any(_OF_TOKENIZER.search(path.name) for path in Path(where).iterdir()):
        raise UserError(
            f"the folder {where!r} has no tokenizer: expected tokenizer.json, or another file of "
            "one, such as tokenizer.model; copy those of the model here"
        )


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


def check_base(where: str, base: str) -> None:
    """UserError where the base model that a checkpoint names is a checkpoint of heads itself."""
    config = read_json(base, "config.json")
    if config is not None and BASE in config:
        raise UserError(
            f"config.json of {where!r} names {base!r} as its base model, which holds heads itself "
            f"and names {shown(config[BASE])}; {BASE} must be a language model"
        )


def check_weights_exist(where: str, config: dict) -> None:
    """UserError where a checkpoint that names no base model has no language model's weights.

    config: its config.json. Of a hub id, nothing else is looked at.
    """
    is_folder = Path(where).is_dir()
    has_weights = not is_folder or any((Path(where) / name).exists() for name in WEIGHT_FILES)
    has_heads = file_of_heads(where) is not None
    if config.get("model_type") == HEADS_ONLY or (has_heads and not has_weights):
        raise UserError(
            f"{where!r} holds Medusa heads, but its config.json names no base model; add the entry "
            f'"{BASE}": the folder or hub id of the model that the heads were trained for'
        )
    if not has_weights:
        gguf = min(Path(where).glob("*.gguf"), default=None)
        hint = f"; to use its GGUF file, name that: {str(gguf)!r}" if gguf else ""
        raise UserError(
            f"the folder {where!r} has no weights: expected {' or '.join(WEIGHT_FILES)}{hint}"
        )


def refuse_adapter(where: str) -> None:
    """UserError where an adapter (LoRA and the like) lies beside a model.

    transformers would ignore it, or apply it where the package peft happens to be installed.
    """
    if find(where, ADAPTER_FILE) is not None:
        raise UserError(
            f"{where!r} holds an adapter ({ADAPTER_FILE}), which is not read here; merge it into "
            "the model's weights (merge_and_unload in peft) and give the merged folder, or remove "
            "its files to use the model without it"
        )


def warnings_about_weights(where: str) -> Iterator[str]:
    """A warning where a folder holds a model's weights twice."""
    found = [name for name in WEIGHT_FILES if (Path(where) / name).exists()]
    if len(found) > 1:
        yield (
            f"{where!r} holds weights more than once ({', '.join(found)}); those of {found[0]} are "
            "used"
        )


def warnings_about_unused_weights(where: str, base: str) -> Iterator[str]:
    """A warning where a folder of heads also holds the weights of a whole model.

    Those of `base`, which its config.json names, are used instead.
    """
    found = [name for name in WEIGHT_FILES if (Path(where) / name).exists()]
    if found == ["model.safetensors"] and not any(
        (Path(where) / name).exists() for name in OWN_HEAD_FILES
    ):
        found = []  # vLLM's name of a file of heads.
    if found:
        yield (
            f"{where!r} holds weights of its own ({', '.join(found)}), but its config.json names "
            f"a base model: those of {base!r} are used. If its own are meant, remove {BASE} from "
            "config.json"
        )


def check_tensors(where: str, info: dict[str, set]) -> None:
    """UserError where the tensors of a checkpoint are not those of its model and of heads.

    info: what transformers says about loading it.
    """
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if mismatched := sorted(map(tuple, info["mismatched_keys"])):
        name, found, expected = mismatched[0]
        raise UserError(
            f"tensor {name!r} of {where!r} is {list(found)}, but by its config.json it is "
            f"{list(expected)}; correct config.json, such as its vocab_size"
        )
    if missing:
        wrapped = next((name for name in unexpected if _wraps(name, set(missing))), None)
        hint = f"; {wrapped!r} is a training wrapper's: save what it wraps" if wrapped else ""
        raise UserError(
            f"the weights of {where!r} lack {len(missing)} tensors of the model, among them "
            f"{missing[0]!r}{hint}"
        )
    unknown = [name for name in unexpected if not name.startswith(MERGED_PREFIX)]
    if unknown:
        raise UserError(
            f"the weights of {where!r} hold {unknown[0]!r}, which neither the model nor Medusa "
            "heads have"
        )


def _wraps(name: str, missing: set[str]) -> bool:
    """Whether a name, without a wrapper's parts or a prefix, is that of a missing tensor."""
    parts = unwrapped(name).split(".")
    return any(".".join(parts[start:]) in missing for start in range(len(parts)))
