"""The one place that turns a name into a ready model.

    demo                 the embedded demo model
    a folder or hub id   of a Medusa-1 checkpoint: config.json that names base_model_name_or_path (relative to the folder,
                         or a hub id) and medusa_lm_head.safetensors | .pt
                         of a merged Medusa-2 checkpoint: an ordinary one with medusa_head.* tensors beside the model's
                         of any causal LM: no heads, for greedy and decoders that need none

A checkpoint cannot execute code: pickles are read with weights_only=True, and modelling code that a checkpoint brings along
runs only where `trust_remote_code` is given.
"""

import json
import pickle
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import torch
from accelerate.utils import convert_file_size_to_int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file, logging
from transformers.utils.hub import extract_commit_hash

from bench.common.errors import UserError
from bench.common.files import parse_json, read_document, shown
from decoders.conditional.calibration import read_calibration
from decoders.draft_vocabulary import read_vocabulary
from decoders.model.heads import MERGED_PREFIX, MedusaHeads
from decoders.model.model import Model, UnsupportedModel
from decoders.tree import read_tree

DEMO = "demo"
STATIC_TREE_FILE = "medusa_tree.json"
CALIBRATION_FILE = "medusa_calibration.json"
VOCABULARY_FILE = "medusa_vocabulary.json"
HEAD_FILES = ("medusa_lm_head.safetensors", "medusa_lm_head.pt")
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DTYPES = ("auto", "float32", "float16", "bfloat16")


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model that is ready to decode, with what belongs to it."""

    model: Model
    tokenizer: PreTrainedTokenizerBase
    name: str  # short, for file names and tables
    identity: str  # of its files, and of the base model's where they lie elsewhere
    eos: frozenset[int]  # token ids that end an answer


def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    load_in_8bit: bool = False,
    load_in_4bit: bool = False,
    max_memory: dict[int, int | str] | None = None,
    trust_remote_code: bool = False,
    compile: bool = False,
) -> Loaded:
    """Load a model by name; UserError says what does not fit.

    device: "auto" (cuda where there is one), "cpu", "cuda", "cuda:1", "mps", or "balanced": spread over all GPUs.
    dtype: "auto" is the checkpoint's own on an accelerator and float32 on the CPU.
    max_memory: with "balanced", what each GPU may hold of the weights; GPUs that are not in it hold nothing.
    trust_remote_code: whether the model's or the tokenizer's own Python files may be executed.
    compile: whether the small operations of the forward are fused, which takes seconds at first.
    """
    device = check_device(device, load_in_8bit or load_in_4bit)
    where = str(files(__package__) / "demo") if name == DEMO else name
    with _readable_errors(name):
        config = _read_json(where, "config.json", required=True)
        medusa1 = "base_model_name_or_path" in config
        base = _base_of(where, config) if medusa1 else where
        if not medusa1:
            _check_weights_exist(where)
        _read_index(base)
        lm, unexpected = _load_lm(
            base, device, dtype, load_in_8bit, load_in_4bit, max_memory, trust_remote_code
        )
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=trust_remote_code)
        heads = _read_heads(where, medusa1, unexpected)
        tree_file = _find(where, STATIC_TREE_FILE)
        static_tree = read_tree(Path(tree_file)) if tree_file else None
        calibration_file = _find(where, CALIBRATION_FILE)
        calibration = read_calibration(Path(calibration_file)) if calibration_file else None
        hidden, vocab = (
            lm.get_output_embeddings().weight.shape[1],
            lm.config.get_text_config().vocab_size,
        )
        vocabulary_file = _find(where, VOCABULARY_FILE)
        frequent = read_vocabulary(Path(vocabulary_file), vocab) if vocabulary_file else None
    try:
        stacked = MedusaHeads.from_published(heads, hidden, vocab) if heads is not None else None
    except ValueError as error:
        raise UserError(f"the heads of {name!r} do not fit its base model: {error}") from error
    try:
        model = Model(lm, stacked, static_tree, calibration, frequent, fused=compile)
        model.check_tree_attention()
    except UnsupportedModel as error:
        raise UserError(f"{name!r} cannot be used: {error}") from error
    except torch._dynamo.exc.TorchDynamoException as error:
        raise UserError(
            f"--compile was given, but {name!r} cannot be compiled here: {_line(error)}; leave the flag out, or install what "
            "is missing (a C++ compiler; on CUDA, Triton)"
        ) from error
    eos = lm.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])} - {None}
    identity = " ".join(identity_of(each) for each in dict.fromkeys((where, base)))
    return Loaded(model, tokenizer, Path(name).resolve().name, identity, frozenset(ends))


def identity_of(where: str, sample: int = 1 << 20) -> str:
    """What tells a model's files apart: the commit on a hub; of a folder, a digest of every file's name, size and ends.

    The ends are the first and last `sample` bytes: a checkpoint of many GB is not read a second time for it.
    """
    if not Path(where).is_dir():
        return extract_commit_hash(_find(where, "config.json"), None) or where
    digest = sha256()
    for path in sorted(path for path in Path(where).iterdir() if path.is_file()):
        size = path.stat().st_size
        with path.open("rb") as content:
            ends = content.read(sample)
            content.seek(max(0, size - sample))
            ends += content.read(sample)
        digest.update(f"{path.name} {size} {sha256(ends).hexdigest()}\n".encode())
    return digest.hexdigest()


def check_device(device: str, quantised: bool = False) -> str:
    """The device that "auto" means here, or the given one; UserError where there is none such."""
    accelerator = (
        torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    )
    if device == "auto":
        device = accelerator.type if accelerator else "cpu"
    if device != "balanced":
        try:
            kind = torch.device(device).type
            device = "cpu" if kind == "cpu" else device
        except RuntimeError:
            raise UserError(
                f"unknown device {device!r}; expected auto, balanced, cpu, cuda, cuda:N or mps"
            ) from None
    else:
        kind = "cuda"
    if kind != "cpu" and (accelerator is None or accelerator.type != kind):
        has = f"only {accelerator.type}" if accelerator else "no accelerator"
        raise UserError(
            f"device {device!r} was asked for, but this machine has {has}; use --device cpu or auto"
        )
    if quantised and kind != "cuda":
        raise UserError(
            f"8-bit and 4-bit loading need a CUDA GPU; the device is {device!r}. Leave the flag out here"
        )
    return device


def gpu_memory(gpus: int | None, each: str | None) -> dict[int, int | str]:
    """`max_memory` for the first `gpus` GPUs (None: all), `each` of a size such as "20GiB" (None: what is free there)."""
    there = torch.cuda.device_count()
    if gpus is not None and not 1 <= gpus <= there:
        raise UserError(f"{gpus} GPUs were asked for one model, but this machine has {there}")
    if each is not None:
        try:
            convert_file_size_to_int(each)
        except ValueError:
            raise UserError(
                f"a GPU memory of {each!r} was asked for; expected a size such as 20GiB"
            ) from None
    return {gpu: each or torch.cuda.mem_get_info(gpu)[0] for gpu in range(gpus or there)}


def _load_lm(
    base: str,
    device: str,
    dtype: str,
    load_in_8bit: bool,
    load_in_4bit: bool,
    max_memory: dict | None,
    trust_remote_code: bool,
):
    """The language model and the names of the tensors in its files that it does not have."""
    options = {"trust_remote_code": trust_remote_code} | (
        {"max_memory": max_memory} if max_memory else {}
    )
    if load_in_8bit or load_in_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=load_in_8bit, load_in_4bit=load_in_4bit
        )
    if dtype == "auto" and device == "cpu":
        dtype = "float32"
    lm, info = AutoModelForCausalLM.from_pretrained(
        base,
        dtype=dtype if dtype == "auto" else getattr(torch, dtype),
        device_map="auto" if device == "balanced" else {"": device},
        output_loading_info=True,
        **options,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"the weights of {base!r} lack {len(missing)} tensors of the model, among them {missing[0]!r}"
        )
    unexpected = set(info["unexpected_keys"])
    strange = sorted(name for name in unexpected if not name.startswith(MERGED_PREFIX))
    if strange:
        raise UserError(
            f"the weights of {base!r} hold {strange[0]!r}, which neither the model nor Medusa heads have"
        )
    return lm, unexpected


def _base_of(where: str, config: dict) -> str:
    """The base model's folder or hub id; a relative path counts from the heads' folder."""
    base = config["base_model_name_or_path"]
    if not isinstance(base, str) or not base:
        raise UserError(
            f"config.json of {where!r} names no base model: base_model_name_or_path is {shown(base)}"
        )
    beside = Path(where) / base
    if beside.is_dir():
        return str(beside)
    if Path(base).is_absolute() or base.startswith("."):
        raise UserError(
            f"the base model of {where!r}, {base!r}, is not a folder; correct its config.json"
        )
    return base


def _read_heads(where: str, medusa1: bool, unexpected: set[str]) -> dict[str, Tensor] | None:
    """The heads' tensors under their published names, or None for a model without heads."""
    if not medusa1:
        merged = {name for name in unexpected if name.startswith(MERGED_PREFIX)}
        return _read_merged(where, merged) if merged else None
    found = next((path for path in map(lambda name: _find(where, name), HEAD_FILES) if path), None)
    if found is None:
        raise UserError(
            f"{where!r} names a base model but has no heads: expected {' or '.join(HEAD_FILES)}"
        )
    if found.endswith(".safetensors"):
        return load_file(found)
    tensors = torch.load(found, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(each, Tensor) and each.layout == torch.strided
        for name, each in tensors.items()
    ):
        raise UserError(
            f"{found} holds a {type(tensors).__name__}, not a dictionary of named dense tensors"
        )
    return tensors


def _read_merged(where: str, names: set[str]) -> dict[str, Tensor]:
    """Medusa-2: the heads' tensors from a checkpoint's files, sharded or not."""
    index = _read_index(where)
    if index:
        shards = {index[name] for name in names if name in index}
    else:
        shards = {name for name in ("model.safetensors", "pytorch_model.bin") if _find(where, name)}
    tensors: dict[str, Tensor] = {}
    for shard in sorted(shards):
        path = _find(where, shard)
        if path is None:
            raise UserError(f"{where!r} lacks {shard}, which its index names")
        if shard.endswith(".safetensors"):
            with safe_open(path, "pt") as opened:
                tensors |= {
                    name: opened.get_tensor(name) for name in names.intersection(opened.keys())
                }
        else:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            tensors |= {name: content[name] for name in names.intersection(content)}
    return {name.removeprefix(MERGED_PREFIX): tensor for name, tensor in tensors.items()}


def _read_index(where: str) -> dict[str, str]:
    """Tensor -> file of a sharded checkpoint, or nothing; UserError where a file would lie outside the checkpoint."""
    for filename in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if index := _read_json(where, filename):
            files_ = index.get("weight_map")
            if not isinstance(files_, dict) or not all(
                isinstance(each, str) for each in files_.values()
            ):
                raise UserError(f"{filename} of {where!r} has no weight_map of tensors to files")
            for each in sorted(set(files_.values())):
                if Path(each).name != each:
                    raise UserError(
                        f"{filename} of {where!r} names {shown(each)}; expected a file beside it"
                    )
            return files_
    return {}


def _find(where: str, filename: str) -> str | None:
    return cached_file(
        where,
        filename,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        _raise_exceptions_for_gated_repo=False,
    )


def _read_json(where: str, filename: str, required: bool = False) -> dict:
    path = _find(where, filename)
    if path is None:
        if required:
            raise UserError(
                f"no model at {where!r}: expected {DEMO!r}, a folder with {filename}, or a hub id in reach"
            )
        return {}
    try:
        content = parse_json(read_document(Path(path)))
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


def check_model_name(name: str) -> None:
    """UserError for what cannot be a model, as far as can be said without loading one."""
    if name == DEMO:
        return
    folder = Path(name)
    if folder.is_file():
        raise UserError(f"model {name!r} is a file; expected {DEMO!r}, a folder or a hub id")
    if folder.is_dir():
        with _readable_errors(name):
            config = _read_json(name, "config.json", required=True)
            if "base_model_name_or_path" not in config:
                _check_weights_exist(name)
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError(f"model folder {name!r} does not exist")


def _check_weights_exist(where: str) -> None:
    if Path(where).is_dir() and not any((Path(where) / name).exists() for name in WEIGHT_FILES):
        raise UserError(
            f"the folder {where!r} has no weights: expected {' or '.join(WEIGHT_FILES)}"
        )


@contextmanager
def _readable_errors(name: str):
    """Quiet the libraries' logging, and turn what they raise about a checkpoint into one line."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    except pickle.UnpicklingError as error:
        raise UserError(
            f"a file of {name!r} is not a plain tensor file (a pickle may hold code) and was not opened; expected safetensors, "
            "or a pickle of tensors alone"
        ) from error
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"a file of {name!r} is damaged: {_line(error)}") from error
    except ImportError as error:
        raise UserError(
            f"{name!r} needs a package that is not installed: {_line(error)}"
        ) from error
    except UserError:
        raise
    except Exception as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{name!r} brings Python code of its own, which was not executed; read it, and if you trust it, give "
                "--trust-remote-code"
            ) from error
        raise UserError(
            f"model {name!r} cannot be loaded: {type(error).__name__}: {_line(error)}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
