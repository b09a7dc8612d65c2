"""Models in GGUF files, read through transformers: weights, tokenizer, template and end of text.

    model.gguf          a file
    folder              a folder that holds one .gguf file; of several, the file must be named

transformers dequantises the weights. The package `gguf` is an extra. One part of a split file is
refused. What transformers does not read of a file is read by `bench.inputs.gguf_metadata`.
"""

import re
import struct
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bench.common.errors import UserError
from bench.common.strangers import strangers_code, told
from bench.inputs.bounds import check_tokenizer
from bench.inputs.checkpoint_checks import check_tensors
from bench.inputs.gguf_metadata import Metadata

try:
    from transformers import GgufConfig
except ImportError:  # Versions without it always dequantise.
    GgufConfig = None

MAGIC = b"GGUF"
VERSIONS = (2, 3)
HEADER_BYTES = 24  # Magic 4, version 4, number of tensors 8, number of metadata entries 8.
SUFFIX = ".gguf"
PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf")  # The end of a part's name, as llama.cpp writes it.


@dataclass(frozen=True)
class GGUF:
    """One GGUF file."""

    folder: str
    file: str

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.file


def find_gguf(name: str) -> GGUF | None:
    """The GGUF file that a model's name stands for. None: it stands for another kind of model.

    UserError where a folder holds several, or the file is no GGUF file.
    """
    path = Path(name)
    if path.is_dir():
        if (path / "config.json").exists():
            return None
        files = sorted(each for each in path.iterdir() if each.suffix == SUFFIX)
        if not files:
            return None
        if len(files) > 1:
            listed = ", ".join(each.name for each in files[:5])
            raise UserError(
                f"the folder {name!r} holds {len(files)} GGUF files ({listed}); name one of them, "
                f"such as {str(files[0])!r}"
            )
        path = files[0]
    elif path.suffix != SUFFIX or not path.is_file():
        return None
    _refuse_part(path)
    _check_header(path)
    check_package(repr(str(path)))
    return GGUF(str(path.parent), path.name)


def check_package(what: str) -> None:
    """UserError where the package `gguf` is not installed. `what` needs it."""
    if find_spec("gguf") is None:
        raise UserError(
            f"{what} is a GGUF file, which needs the package gguf: pip install 'medusa-bench[gguf]'"
        )


def _refuse_part(path: Path) -> None:
    """UserError where a file is one of several parts: transformers reads one file alone."""
    match = PART.search(path.name)
    if match is not None and int(match[1]) > 1:
        raise UserError(
            f"{path} is one of {int(match[1])} parts of a GGUF file; join them with llama.cpp's "
            "llama-gguf-split --merge, and name the whole file"
        )


def _check_header(path: Path) -> None:
    """UserError where a file does not begin like a GGUF file."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if header[:4] != MAGIC:
        raise UserError(f"{path} is not a GGUF file: it begins with {header[:4]!r}, not {MAGIC!r}")
    if len(header) < HEADER_BYTES:
        raise UserError(f"{path} is cut off: it has {path.stat().st_size} bytes")
    (version,) = struct.unpack("<I", header[4:8])
    if version not in VERSIONS:
        raise UserError(
            f"{path} has GGUF version {version}; expected {' or '.join(map(str, VERSIONS))}"
        )


def load_gguf(
    gguf: GGUF, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The language model of a GGUF file, on the CPU, and its tokenizer.

    UserError where transformers does not know its architecture, the file is damaged, it lacks
    tensors of the model, or it has biases that the model does not.
    """
    # Packed weights would need kernels that transformers fetches from the hub.
    more = {} if GgufConfig is None else {"quantization_config": GgufConfig(dequantize=True)}
    # transformers would look for a name alone in the current folder first, and would read another
    # tokenizer that lies beside the file.
    file = str(gguf.path.absolute())
    with strangers_code(lambda error: _unreadable(gguf, error)), TemporaryDirectory() as empty:
        tokenizer = AutoTokenizer.from_pretrained(empty, gguf_file=file)
        # Only its use is tried in a child. Making it takes seconds, and maps the whole file.
        check_tokenizer(str(gguf.path), lambda: tokenizer)
        quantised, info = AutoModelForCausalLM.from_pretrained(
            empty, gguf_file=file, dtype=dtype, output_loading_info=True, **more
        )
    # Files may hold more than a model of transformers has.
    check_tensors(str(gguf.path), info | {"unexpected_keys": set()})
    # A config that says "quantised" keeps transformers from saving the model.
    config = quantised.config
    config.__dict__.pop("quantization_config", None)
    metadata = Metadata(gguf.path)
    metadata.complete(config)
    lm = type(quantised)(config)
    metadata.check_biases(lm)
    for parameter in lm.parameters():  # Not the rotary frequencies, which stay float32.
        parameter.data = parameter.data.to(dtype)
    metadata.divide_frequencies(lm)
    lm.load_state_dict(quantised.state_dict())
    lm.tie_weights()
    lm.generation_config = quantised.generation_config
    return lm.eval(), tokenizer


def _unreadable(gguf: GGUF, error: BaseException) -> str:
    """What transformers' error says about a file."""
    return (
        f"{gguf.path} cannot be read: {told(error)}; the file is damaged, or transformers does not "
        "know this architecture in GGUF"
    )
