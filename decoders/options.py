"""The options of decoders: their names without importing anything, and their values from text.

The options of a decoder are the fields of its dataclass. Loading the class of a decoder loads
torch, which takes seconds. So a misspelt option is found in the source of the class, and `--help`
lists options from there. Nothing in this module needs torch.
"""

import ast
import types
import typing
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class Option:
    """An option as it is written in the source of a decoder's class."""

    name: str
    default: str | None  # As Python source. None: it has no default.


@cache
def written_options(target: str) -> tuple[Option, ...]:
    """The options of a class of this project, named as "module:Class", in order."""
    module, _, name = target.partition(":")
    found = find_spec(module)
    assert found is not None and found.loader is not None
    body = ast.parse(found.loader.get_source(module)).body
    classes = {node.name: node for node in body if isinstance(node, ast.ClassDef)}
    options: dict[str, Option] = {}
    for each in _with_bases(classes, name):
        for node in each.body:
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.unparse(node.annotation):
                option = ast.unparse(node.target)
                default = None if node.value is None else ast.unparse(node.value)
                options[option] = Option(option, default)
    return tuple(options.values())


def _with_bases(classes: dict[str, ast.ClassDef], name: str) -> list[ast.ClassDef]:
    """A class and its bases in the same file, bases first. Those in other files have no options."""
    if name not in classes:
        return []
    bases = [ast.unparse(base) for base in classes[name].bases]
    return [*(found for base in bases for found in _with_bases(classes, base)), classes[name]]


def parsed(text: str, wanted: object, where: str) -> object:
    """The value of an option. ValueError, which names `where`, where the text is no such value.

    wanted: the type of its field: int, float, bool, str, Path, Literal, or a union of these and
    None. (None is the value of an option that is not given.)
    """
    kinds = _members(wanted)
    for kind in kinds:
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(kind) is typing.Literal:
            for choice in typing.get_args(kind):
                if str(choice) == text:
                    return choice
        if kind in (int, float, str, Path):
            try:
                return kind(text)
            except ValueError:
                continue
    raise ValueError(f"{where} is {text!r}; expected {' or '.join(map(_in_words, kinds))}")


def _members(wanted: object) -> tuple[object, ...]:
    """The types of a union in the order in which they are tried: str and Path take any text."""
    is_union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    members = typing.get_args(wanted) if is_union else (wanted,)
    given = (kind for kind in members if kind is not types.NoneType)
    return tuple(sorted(given, key=lambda kind: kind in (str, Path)))


def _in_words(kind: object) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    name = getattr(kind, "__name__", str(kind))
    is_known = kind in (int, float, bool, str, Path)
    return name if is_known else f"{kind}, which the command line cannot give"
