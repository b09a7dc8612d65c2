"""Files of named tensors: safetensors, and pickles that hold nothing else."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import safe_open
from torch import Tensor

from bench.common.errors import UserError
from bench.common.files import shown
from bench.inputs.bounds import check_sizes, check_zip

PICKLES = (".pt", ".bin")  # Endings of files of tensors in torch's own format.


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


def refuse_differing(where: str, names: Iterable[str]) -> None:
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
