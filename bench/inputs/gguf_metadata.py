"""What a GGUF file says of its model that transformers does not read.

    <architecture>.rope.freq_base      base of the rotary frequencies
    <architecture>.rope.scaling.type   "linear", also where it is absent; "none"; or another way
    <architecture>.rope.scaling.factor, or .rope.scale_linear
                                       linear: what all frequencies are divided by; 0 means 1
    rope_freqs.weight                  what each frequency is divided by, as of Llama 3.1 and 3.2
    tokenizer.ggml.pre                 how text is split before the merges of a vocabulary

The meanings are llama.cpp's. What is neither read here nor by transformers is named in a warning.
A file with biases that transformers would drop is refused.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from bench.common.errors import UserError
from bench.common.files import shown

try:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
except ImportError:  # Earlier releases of transformers choose the split by the architecture.
    GGUF_PRE_TOKENIZER_SPLITS = None

if TYPE_CHECKING:  # The package is an extra.
    from gguf import ReaderTensor

DIVISORS = "rope_freqs.weight"
ROTARY_TENSORS = ("rope_freqs", "rope_factors")  # How their names begin.
ROTARY_BUFFERS = ("inv_freq", "original_inv_freq")  # Their names in a rotary module, both [pairs].
READ_BY_TRANSFORMERS = ("gpt-oss",)  # Architectures whose rope.scaling it reads.
# Splits with the same tokens as GPT-2's, which transformers takes where it knows no other. Some
# also split numbers into digits; their vocabularies hold no token of several digits.
SPLIT_AS_GPT2 = (
    "default", "gpt-2", "phi-2", "jais", "gigachat", "mpt", "olmo", "smollm", "starcoder", "refact",
    "command-r", "codeshell", "exaone",
)  # fmt: skip
BIAS = re.compile(r"blk\.\d+\.(attn_(q|k|v|qkv|output)|ffn_(up|down|gate))\.bias")


class Metadata:
    """What transformers does not read of one GGUF file."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        self.path = path
        reader = GGUFReader(path)
        self._entries = {name: field.parts[-1] for name, field in reader.fields.items()}
        self._tensors: dict[str, ReaderTensor] = {each.name: each for each in reader.tensors}
        self.architecture = self._text("general.architecture")

    def _text(self, name: str) -> str | None:
        entry = self._entries.get(name)
        return None if entry is None else bytes(entry).decode(errors="replace")

    def _number(self, name: str) -> float | None:
        """An entry of this architecture."""
        entry = self._entries.get(f"{self.architecture}.{name}")
        return None if entry is None else float(entry[0])

    @cached_property
    def _way(self) -> str:
        """How rotary positions are scaled."""
        return self._text(f"{self.architecture}.rope.scaling.type") or "linear"

    def complete(self, config: PretrainedConfig) -> None:
        """Put the base and a linear scaling of rotary frequencies into a model's configuration.

        Of layers of several types, these are those of full attention.
        """
        parameters = getattr(config, "rope_parameters", None) or {}
        parameters = parameters.get("full_attention", parameters)
        if not parameters or self.architecture in READ_BY_TRANSFORMERS:
            return
        if base := self._number("rope.freq_base"):
            parameters["rope_theta"] = base
        factor = self._number("rope.scaling.factor") or self._number("rope.scale_linear") or 1.0
        if self._way == "linear" and factor != 1:
            parameters |= {"rope_type": "linear", "factor": factor}

    @property
    def _divisors(self) -> Tensor | None:
        """[pairs] what rotary frequencies are divided by. None: nothing."""
        tensor = self._tensors.get(DIVISORS)
        divisors = None if tensor is None else torch.tensor(tensor.data).float()
        return None if divisors is None or torch.all(divisors == 1) else divisors

    @property
    def has_divisors(self) -> bool:
        """Whether rotary frequencies are divided by numbers that no configuration can hold."""
        return self._divisors is not None

    def divide_frequencies(self, lm: PreTrainedModel) -> None:
        """Divide a model's rotary frequencies by those of the file, if it has some.

        UserError where they are not one for each frequency.
        """
        divisors = self._divisors
        if divisors is None:
            return
        found = [
            (module, name, frequencies)
            for module in lm.modules()
            for name in ROTARY_BUFFERS
            if (frequencies := getattr(module, name, None)) is not None
        ]
        if not found or any(each.shape != divisors.shape for _, _, each in found):
            shapes = {tuple(each.shape) for _, _, each in found}
            raise UserError(
                f"{self.path} holds {DIVISORS!r} with {len(divisors)} numbers; expected one for "
                f"each rotary frequency of its model, of shape {shown(shapes)}"
            )
        for module, name, frequencies in found:
            setattr(module, name, frequencies / divisors)

    def check_biases(self, lm: PreTrainedModel) -> None:
        """UserError where the file holds more biases than transformers' model of it has."""
        biases = [name for name in self._tensors if BIAS.fullmatch(name)]
        if len(biases) > sum(name.endswith(".bias") for name in lm.state_dict()):
            raise UserError(
                f"{self.path} holds {len(biases)} biases, such as {biases[0]!r}, that transformers "
                f"has no place for in a {type(lm).__name__}; use the model's checkpoint in "
                "safetensors"
            )

    def warnings(self, lm: PreTrainedModel) -> Iterator[str]:
        """A warning for each way in which prompts or answers differ from the original model's."""
        if unread := list(self._unread(lm)):
            yield (
                f"{self.path} holds {', '.join(unread)}, which is not read from a GGUF file; the "
                "model's positions, and so its answers, differ from the original's. Its checkpoint "
                "in safetensors has them right"
            )
        split = self._text("tokenizer.ggml.pre")
        if GGUF_PRE_TOKENIZER_SPLITS is None or self._text("tokenizer.ggml.model") != "gpt2":
            return
        if split and split not in (*SPLIT_AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
            yield (
                f"{self.path} says that its tokenizer splits text as {shown(split)}, which "
                "transformers does not read from a GGUF file: prompts have other tokens than the "
                "original's. Its checkpoint in safetensors has them right"
            )

    def _unread(self, lm: PreTrainedModel) -> Iterator[str]:
        """What of the file's rotary positions is not read."""
        if self._way not in ("linear", "none") and self.architecture not in READ_BY_TRANSFORMERS:
            yield f"{self.architecture}.rope.scaling.type={shown(self._way)}"
        for name in self._tensors:
            if name.startswith(ROTARY_TENSORS) and name != DIVISORS:
                yield name
        dimensions = self._number("rope.dimension_count")
        turned = {2 * len(each) for name, each in lm.named_buffers() if name.endswith("inv_freq")}
        if dimensions and turned and dimensions not in turned:
            yield f"{self.architecture}.rope.dimension_count={dimensions:g}"
