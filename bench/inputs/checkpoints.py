"""The layouts of checkpoints: which file holds what, in a folder or on the hub.

    Medusa-1   config.json that names base_model_name_or_path (a folder relative to this one, or a
               hub id), and medusa_lm_head.safetensors or .pt
    Hydra etc. the same with the file that another decoder needs (`Decoder.weights`)
    Medusa-2   an ordinary checkpoint with medusa_head.* tensors beside the model's, in one file or
               in shards, or with a file of heads beside the model's files
    any other  an ordinary checkpoint of a causal LM

`where` is always the folder or hub id of a checkpoint. Pickles are read as tensors alone.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from zipfile import is_zipfile

import torch
from huggingface_hub.errors import GatedRepoError
from safetensors import safe_open
from torch import Tensor
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from bench.common.errors import UserError
from bench.common.files import digest_of, read_document, shown
from bench.common.strict_json import parse_json
from bench.inputs.bounds import check_layers, check_sizes, check_zip, tensor_names
from bench.inputs.head_layouts import unwrapped
from bench.inputs.spelling import DEMO
from decoders.model.heads import MERGED_PREFIX

BASE = "base_model_name_or_path"  # The entry of config.json that makes it a Medusa-1 checkpoint.
ADAPTER_FILE = "adapter_config.json"
HEADS_ONLY = "medusa"  # The model_type of a configuration that is about heads alone, as in vLLM.
# The last is vLLM's, in a folder whose config names a base model.
HEAD_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt", "model.safetensors")
OWN_HEAD_FILES = HEAD_FILES[:2]  # Those that hold heads alone.
INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# A model's weights, in the order in which transformers looks for them.
WHOLE_FILES = ("model.safetensors", "pytorch_model.bin")
WEIGHT_FILES = (WHOLE_FILES[0], INDEX_FILES[0], WHOLE_FILES[1], INDEX_FILES[1])
PICKLES = (".pt", ".bin")  # Endings of files of tensors in torch's own format.
# Git LFS leaves a small pointer file in place of a large one: its beginning, and its most bytes.
POINTER, LONGEST_POINTER = b"version https://git-lfs", 1024
# Names of files of tokenizers, which transformers knows by class.
_OF_TOKENIZER = re.compile(r"token|tekken|vocab|merges|spiece|sentencepiece|bpe")
ABOUT = (".md", ".png", ".jpg", ".svg", ".pdf")  # Endings of texts about a model, and of pictures.
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


def find_weights(where: str, filename: str) -> str | None:
    """As `find`, for a file of tensors that may also be there as a pickle (PICKLES).

    UserError where a folder holds it as both, and they differ.
    """
    names = [filename, *(str(Path(filename).with_suffix(suffix)) for suffix in PICKLES)]
    _refuse_differing(where, names)
    return next((path for name in names if (path := find(where, name))), None)


def _refuse_differing(where: str, names: Iterable[str]) -> None:
    """UserError where a folder holds tensors in several files, which differ.

    names: those of files of which one is enough. A hub id is not looked at.
    """
    there = [str(path) for name in names if (path := Path(where) / name).is_file()]
    if len(there) < 2:
        return
    first = read_tensors(there[0])
    for path in there[1:]:
        if (name := _first_difference(first, read_tensors(path))) is not None:
            raise UserError(
                f"{there[0]} and {path} hold different tensors, such as {name!r}, and only one of "
                "them would be used; remove the other"
            )


def _first_difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str | None:
    """The first tensor that is not the same in two files. None: all are, up to their dtypes."""
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            return name
        coarser = min(one[name].dtype, other[name].dtype, key=lambda dtype: dtype.itemsize)
        if not torch.equal(one[name].to(coarser), other[name].to(coarser)):
            return name
    return None


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


def check_base(where: str, base: str) -> None:
    """UserError where the base model that a checkpoint names is a checkpoint of heads itself."""
    config = read_json(base, "config.json")
    if config is not None and BASE in config:
        raise UserError(
            f"config.json of {where!r} names {base!r} as its base model, which holds heads itself "
            f"and names {shown(config[BASE])}; {BASE} must be a language model"
        )


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


def warnings_about_weights(where: str) -> Iterator[str]:
    """A warning where a folder holds a model's weights twice."""
    found = [name for name in WEIGHT_FILES if (Path(where) / name).exists()]
    if len(found) > 1:
        yield (
            f"{where!r} holds weights more than once ({', '.join(found)}); those of {found[0]} are "
            "used"
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


def read_tensors(path: str, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """The named tensors of a .safetensors file, or of a pickle that holds nothing else.

    names: tensors to read; those that the file lacks are skipped. None: all of its tensors.
    """
    if path.endswith(".safetensors"):
        with safe_open(path, "pt") as opened:
            return {name: opened.get_tensor(name) for name in _wanted(opened.keys(), names)}
    check_zip(Path(path))
    # A pickle of a whole model is not read to its end for the sake of a few tensors.
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not a dictionary of named dense tensors"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not _is_dense(value):
            what = (
                "a tensor that is not dense" if isinstance(value, Tensor) else type(value).__name__
            )
            raise UserError(
                f"{path} holds {what} under {shown(name)}; expected named dense tensors alone, as "
                "torch.save(module.state_dict(), ...) writes them"
            )
    # Some are Parameters.
    wanted = {name: content[name].detach() for name in _wanted(content, names)}
    check_sizes(Path(path), wanted.values())
    return wanted


def _wanted(there: Iterable[str], names: Collection[str] | None) -> list[str]:
    return [name for name in there if names is None or name in names]


def _is_dense(value: object) -> bool:
    is_here = isinstance(value, Tensor) and not value.is_meta
    return is_here and value.layout == torch.strided


def file_of_heads(where: str) -> str | None:
    """The name of the file of heads in a folder or on a hub. None: there is none."""
    return next((name for name in OWN_HEAD_FILES if find(where, name)), None)


def read_separate_heads(where: str, others: Collection[str]) -> dict[str, Tensor] | None:
    """Medusa-1: the heads' tensors, under their published names.

    others: names of files with other kinds of heads. None: there is one of these alone. UserError
    where there is no file of heads, or where there are two that differ.
    """
    _refuse_differing(where, OWN_HEAD_FILES)
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


def identity_of(where: str) -> str:
    """A quick identity of a model's files: the commit on a hub, or a digest of a folder or a file.

    The digest covers the name, the size and both ends (SAMPLE_BYTES) of every file. A change in the
    middle of a larger file that keeps its size is missed: see `contents_of`.
    """
    return _identity(where, _digest_of_ends)


def contents_of(where: str) -> str:
    """The commit of a model on a hub, or a digest of the whole content of a folder or a file.

    It reads every byte, which takes about a second for each GB.
    """
    return _identity(where, digest_of)


def _identity(where: str, digest_file: Callable[[Path], str]) -> str:
    """As `identity_of`, with the name, the size and `digest_file` of every file."""
    if Path(where).is_dir():
        paths = sorted(path for path in Path(where).iterdir() if _may_decide(path))
    elif Path(where).is_file():
        paths = [Path(where)]
    else:
        return extract_commit_hash(find(where, "config.json"), None) or where
    digest = sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} {digest_file(path)}\n".encode())
    return digest.hexdigest()


def _may_decide(path: Path) -> bool:
    """Whether a file of a folder may decide what the model computes.

    Texts about it, pictures and hidden files do not.
    """
    return path.is_file() and path.name[0] != "." and path.suffix.lower() not in ABOUT


def _digest_of_ends(path: Path) -> str:
    with path.open("rb") as content:
        ends = content.read(SAMPLE_BYTES)
        content.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        ends += content.read(SAMPLE_BYTES)
    return sha256(ends).hexdigest()
