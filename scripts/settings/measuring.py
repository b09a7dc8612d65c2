"""The settings of the measuring scripts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common.arguments import texts, whole, wholes
from bench.common.errors import UserError
from bench.common.flags import flag
from settings.devices import one_device
from settings.report_files import report_file

DTYPES = ("float16", "bfloat16", "float32")
STEP_DECODERS = (
    "greedy",
    "static",
    "dynamic:nodes=8",
    "dynamic:nodes=16",
    "dynamic:nodes=32",
    "dynamic:nodes=64",
    "dynamic:nodes=128",
)
ATTENTION_HEADS = 32  # Of the model of Vicuna-7B's shape.
MEDUSA_HEADS = 4


def product_sizes(text: str) -> list[tuple[int, int]]:
    """An argument type: sizes of products, OUTxIN, with commas between them.

    >>> product_sizes("12288x4096,4096x11008")
    [(12288, 4096), (4096, 11008)]
    """
    sizes = []
    for part in text.split(","):
        numbers = [int(each) if each.isdecimal() else 0 for each in part.split("x")]
        if len(numbers) != 2 or min(numbers) < 1:
            raise UserError(
                f"--sizes has {part!r}; expected OUTxIN, two numbers from 1 on, such as 4096x11008"
            )
        out, into = numbers
        sizes.append((out, into))
    return sizes


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """Timing steps by phase."""

    model: str
    decoder: Sequence[str] = flag(STEP_DECODERS, "comma-separated; greedy is added", parse=texts)
    lengths: Sequence[int] = flag(
        (128, 512), "committed positions, comma-separated", parse=wholes(1)
    )
    rounds: int = flag(5, "rounds in which the decoders take turns", parse=whole(1))
    steps: int = flag(20, "steps of a decoder in each round", parse=whole(1))
    static_shapes: bool = flag(False, "steps of fixed shapes, which CUDA captures as graphs")
    device: str
    dtype: str
    compile: bool
    out: Path | None = flag(None, "a JSON file of all numbers", parse=report_file)


@dataclass(frozen=True, kw_only=True)
class ProductSettings:
    """Timing the products of a step."""

    sizes: Sequence[tuple[int, int]] | None = flag(
        None, "OUTxIN, comma-separated (default: those of the demo model)", parse=product_sizes
    )
    rows: Sequence[int] = flag((1, 2, 4, 8, 16, 64), "comma-separated", parse=wholes(1))
    device: str = one_device("cpu")
    dtype: str = flag("float32", "of weights and rows", choices=DTYPES)
    rounds: int = flag(7, "rounds in which the ways take turns", parse=whole(1))
    compile: bool = flag(False, "measure `reduced` too; on a CPU it needs a C++ compiler")
    out: Path | None = flag(None, "a JSON file of all numbers", parse=report_file)


@dataclass(frozen=True, kw_only=True)
class ShapeSettings:
    """Timing steps of a model of some shape."""

    hidden: int = flag(
        4096,
        f"size of a hidden state, a multiple of {ATTENTION_HEADS}",
        parse=whole(1),
        accepts=lambda value: value % ATTENTION_HEADS == 0,
        expected=f"a multiple of {ATTENTION_HEADS}, the number of attention heads",
    )
    layers: int = flag(32, "layers of the model", parse=whole(1))
    vocab: int = flag(32000, "tokens of the vocabulary", parse=whole(1))
    context: int = flag(2048, "positions of the model", parse=whole(1))
    length: int = flag(512, "prompt tokens", parse=whole(1))
    tokens: int = flag(64, "tokens of a decoder in each round", parse=whole(1))
    rounds: int = flag(5, "rounds in which the decoders take turns", parse=whole(1))
    compile: bool
    kernels: bool = flag(False, "profile a few steps more, kernel by kernel")
    without_each: bool = flag(False, "time steps without each change that makes the model fast")
    device: str = one_device("cuda")
    dtype: str = flag("float16", "of the weights", choices=DTYPES)
    out: Path | None = flag(None, "a JSON file of all numbers", parse=report_file)

    def check(self) -> None:
        """UserError where the steps do not fit in the context."""
        longest = self.length + (self.tokens + 2) * (MEDUSA_HEADS + 1)
        if longest > self.context:
            raise UserError(
                f"--length {self.length} and {self.tokens} steps do not fit in --context "
                f"{self.context}"
            )
