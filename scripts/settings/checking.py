"""The settings of the checking scripts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.common.arguments import positive, texts, whole
from bench.common.errors import UserError
from bench.common.flags import REQUIRED, flag
from settings.report_files import report_file

LOADS = ("never", "first", "sometimes", "always")  # When this machine is busy.


def some_of(name: str, allowed: Sequence[str]) -> Callable[[str], list[str]]:
    """An argument type: some of `allowed`, with commas between them. name: of the flag."""

    def parse(text: str) -> list[str]:
        chosen = texts(text)
        if not chosen or not set(chosen) <= set(allowed):
            raise UserError(f"{name} is {text!r}; expected some of {','.join(allowed)}")
        return chosen

    return parse


@dataclass(frozen=True, kw_only=True)
class StressSettings:
    """Decoding beside busy loops."""

    model: str
    questions: str
    limit: int | None
    device: str
    dtype: str
    decoder: Sequence[str] = flag(
        ("dynamic:nodes=auto", "conditional:nodes=auto"),
        "comma-separated; greedy is added",
        parse=texts,
    )
    max_new_tokens: int = flag(128, "tokens a turn at most", parse=whole(1))
    load: Sequence[str] = flag(
        LOADS, "when the machine is busy, comma-separated", parse=some_of("--load", LOADS)
    )
    loops: int = flag(2, "busy loops at once", parse=whole(1))
    seconds: float = flag(20.0, "how long the machine is busy with `first`", parse=positive)
    least: float = flag(
        0.9,
        "the lowest median ratio that passes",
        parse=float,
        accepts=lambda value: value >= 0,
        expected="a number from 0 on",
    )
    out: Path | None = flag(None, "a JSON file of all numbers", parse=report_file)


PARTS = ("graphs", "kernels", "shape", "products", "auto")  # Of a check of a GPU.


@dataclass(frozen=True, kw_only=True)
class GpuSettings:
    """What is promised of a GPU."""

    part: Sequence[str] = flag(PARTS, "comma-separated", parse=some_of("--part", PARTS))
    model: Sequence[str] = flag(("demo",), "for auto, comma-separated", parse=texts)
    out: Path = flag(REQUIRED, "a folder for outputs and files, made if need be", parse=Path)
