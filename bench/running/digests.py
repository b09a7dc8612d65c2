"""Digests of what the names of a run's decoders stand for: trees, code, files and folders.

A run is resumed only where they are the same. All are by label.
"""

import ast
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

from bench.common.files import digest_of
from bench.inputs.identity import contents_of
from bench.inputs.locations import model_contents
from decoders.decoder import Decoder, declared

PROJECT = "decoders"  # The package whose decoders a commit of this project identifies.
HERE = Path()  # An option with this value names nothing in particular.
OURS = (PROJECT, "bench", "llm_judge")
CACHE = "__pycache__"  # Python writes it.


def digests_of(decoders: Mapping[str, Decoder]) -> dict[str, dict]:
    """All digests, as a run's configuration has them. Kinds without any are left out."""
    more = {"plugins": plugin_digests(decoders), "files": file_digests(decoders)}
    found = {name: digests for name, digests in more.items() if digests}
    return {"trees": tree_digests(decoders), **found}


def tree_digests(decoders: Mapping[str, Decoder]) -> dict[str, str]:
    """The sha256 of each decoder's `identity`, as a file may change under its name."""
    return {
        label: sha256(json.dumps(decoder.identity).encode()).hexdigest()
        for label, decoder in decoders.items()
        if decoder.identity is not None
    }


def file_digests(decoders: Mapping[str, Decoder]) -> dict[str, dict[str, str]]:
    """The digests of the files, folders and models that the options name, by name or option.

    Files whose contents `identity` holds are left out. Of another package's decoder every option
    is looked at, as it may open what it likes.
    """
    digests = {}
    for label, decoder in decoders.items():
        names: list[str] = []
        if decoder.identity is None:
            names = [*declared(decoder.fitted), *declared(decoder.weights)]
        paths = {name: decoder.path_of(name) for name in names}
        if is_plugin(decoder):
            paths |= {name: value for name, value in _texts(decoder) if value not in paths.values()}
        found = {name: _digest(Path(path)) for name, path in paths.items() if path}
        found |= {name: model_contents(decoder.path_of(name)) for name in decoder.models}
        if found := {name: digest for name, digest in found.items() if digest is not None}:
            digests[label] = found
    return digests


def is_plugin(decoder: Decoder) -> bool:
    """Whether this is a decoder of another package."""
    return type(decoder).__module__.partition(".")[0] != PROJECT


def _texts(decoder: Decoder) -> Iterator[tuple[str, str]]:
    """The options of a decoder that are texts or paths."""
    for field in dataclasses.fields(decoder):
        value = getattr(decoder, field.name, None)
        if isinstance(value, (str, Path)) and Path(value) != HERE:
            yield field.name, str(value)


def _digest(path: Path) -> str | None:
    """The digest of a file, or of a folder's files. None: it is neither."""
    try:
        if path.is_file():
            return digest_of(path)
        return contents_of(str(path)) if path.is_dir() else None
    except (OSError, ValueError):  # Too long for a name, or it cannot be read.
        return None


def plugin_digests(decoders: Mapping[str, Decoder]) -> dict[str, str]:
    """A digest of the files of each decoder of another package.

    These are all files of its package, its weights included, and of the modules that it imports,
    except those of Python, of this project and of further packages. This project's commit does not
    identify them.
    """
    digests = {}
    for label, decoder in decoders.items():
        files = _files_behind(decoder) if is_plugin(decoder) else {}
        if len(files) == 1:  # As earlier versions recorded it.
            digests[label] = digest_of(*files.values())
        elif files:
            lines = [f"{name} {digest_of(path)}\n" for name, path in sorted(files.items())]
            digests[label] = sha256("".join(lines).encode()).hexdigest()
    return digests


def _files_behind(decoder: Decoder) -> dict[str, Path]:
    """The files of a decoder's package and of its own helper modules, by name."""
    waiting = [_top(cls.__module__) for cls in type(decoder).__mro__]
    packages = packages_distributions()
    own = set(packages.get(_top(type(decoder).__module__), ()))
    seen: set[str] = set()
    files: dict[str, Path] = {}
    while waiting:
        top = waiting.pop()
        is_known = top in OURS or top in sys.stdlib_module_names
        if top in seen or is_known or set(packages.get(top, ())) - own:
            continue
        seen.add(top)
        found = _files_of(top)
        files |= found
        for path in found.values():
            waiting += _imported_by(path)
    return files


def _is_left_out(name: str) -> bool:
    """Whether a file or folder is a cache of Python's, or hidden, as editors' own files are."""
    return name == CACHE or name.startswith(".")


def _top(name: str) -> str:
    return name.partition(".")[0]


def _files_of(top: str) -> dict[str, Path]:
    """The file of a module, or all files of a package. Python's caches and hidden files are not.

    top: a name without dots. Nothing is imported.
    """
    folders, file = _place_of(top)
    found = {
        f"{top}/{path.relative_to(folder).as_posix()}": path
        for folder in map(Path, folders)
        for path in folder.rglob("*")
        if path.is_file() and not any(map(_is_left_out, path.relative_to(folder).parts))
    }
    if not found and file and Path(file).is_file():
        found[top] = Path(file)
    return found


def _place_of(top: str) -> tuple[Iterable[str], str | None]:
    """The folders of a package, or none and a module's file. None: there is no such file."""
    if (module := sys.modules.get(top)) is not None:
        return getattr(module, "__path__", ()), getattr(module, "__file__", None)
    with suppress(ImportError, ValueError):
        if (spec := find_spec(top)) is not None:
            return spec.submodule_search_locations or (), spec.origin
    return (), None


def _imported_by(path: Path) -> set[str]:
    """The names, up to the first dot, of what a file of Python imports, in its functions, too."""
    if path.suffix != ".py":
        return set()
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (OSError, ValueError, SyntaxError):
        return set()
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    # Relative imports lead to the same package.
    names += [each.module for each in nodes if isinstance(each, ast.ImportFrom) and not each.level]
    return set(map(_top, names))
