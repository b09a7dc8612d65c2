"""The names of decoders. Classes are loaded when they are asked for.

BUILT_IN lists those of this package. Another package adds its own by an entry point:

    [project.entry-points."medusa_bench.decoders"]
    mine = "my_package.my_module:MyDecoder"

Nothing in this module needs torch.
"""

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from decoders.spec import Spec

if typing.TYPE_CHECKING:
    from decoders.decoder import Decoder

ENTRY_POINTS = "medusa_bench.decoders"
BASE = "decoders.decoder:Decoder"
BUILT_IN = {
    "greedy": "decoders.greedy:Greedy",
    "static": "decoders.static.decoder:Static",
    "dynamic": "decoders.dynamic.decoder:Dynamic",
    "conditional": "decoders.conditional.decoder:Conditional",
    "recycling": "decoders.recycling:Recycling",
    "suffix": "decoders.suffix.decoder:Suffix",
    "draft": "decoders.draft_model:DraftModel",
    "hydra": "decoders.hydra.decoder:Hydra",
    "eagle": "decoders.eagle.decoder:Eagle",
    "hf-greedy": "decoders.hf_generate:HFGreedy",
    "hf-static": "decoders.hf_generate:HFStatic",
    "prompt-lookup": "decoders.hf_generate:PromptLookup",
    "assisted": "decoders.hf_generate:Assisted",
}


class UnknownName(ValueError):
    """A decoder or an option that does not exist."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        available = sorted(available)
        near = get_close_matches(name, available, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        names = ", ".join(available) or "none"
        super().__init__(f"unknown {kind} {name!r}.{hint} Available: {names}.")


def _plugins() -> dict[str, EntryPoint]:
    """Decoders of other packages by name. A built-in name cannot be replaced."""
    points = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    return {name: point for name, point in points.items() if name not in BUILT_IN}


def names() -> list[str]:
    """The names of all decoders, sorted."""
    return sorted([*BUILT_IN, *_plugins()])


def load(name: str) -> "type[Decoder]":
    """The class of a decoder.

    UnknownName where no decoder has this name. Another ValueError where a package does not hold the
    class that its entry point names.
    """
    if name in BUILT_IN:
        return _imported(BUILT_IN[name])
    plugins = _plugins()
    if name not in plugins:
        raise UnknownName("decoder", name, names())
    try:
        cls = plugins[name].load()
    except Exception as error:
        raise ValueError(
            f"decoder {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    is_decoder = isinstance(cls, type) and issubclass(cls, _imported(BASE))
    if not is_decoder or "__dataclass_fields__" not in vars(cls):
        raise ValueError(
            f"decoder {name!r} is {cls!r}; expected a class under @dataclass, derived from "
            f"{BASE.replace(':', '.')}"
        )
    return cls


def _imported(target: str) -> type:
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def weight_files() -> list[str]:
    """The names of the files of tensors that decoders of this package need, sorted."""
    return sorted({file for name in BUILT_IN for file in load(name).weights})


def options(name: str) -> set[str]:
    """The names of the options of a decoder. Raises what `load` raises."""
    return {field.name for field in dataclasses.fields(load(name)) if field.init}


def make(spec: Spec, defaults: Mapping[str, object] | None = None) -> "Decoder":
    """The decoder of a spec, not yet bound to a model.

    defaults: values of options, used where the decoder has the option and the spec does not set it.
    A None among them is ignored. ValueError (or its subclass UnknownName) says what is wrong with a
    name or a value.
    """
    cls = load(spec.name)
    known = options(spec.name)
    for option in spec.options:
        if option not in known:
            raise UnknownName(f"option of decoder {spec.name!r}", option, known)
    shared = {
        name: str(value)
        for name, value in (defaults or {}).items()
        if name in known and value is not None
    }
    types_of = typing.get_type_hints(cls)
    values = {
        name: _parsed(text, types_of[name], f"decoder {str(spec)!r}: option {name}")
        for name, text in (shared | spec.options).items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"decoder {str(spec)!r}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"decoder {str(spec)!r} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _parsed(text: str, wanted: object, where: str) -> object:
    """The value of an option; ValueError where the text is no value of its type."""
    choices = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for kind in choices:
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                continue
    kinds = [kind for kind in choices if kind is not types.NoneType]
    expected = " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds)
    raise ValueError(f"{where} is {text!r}; expected {expected}")


def source_of(decoder: "Decoder") -> Path | None:
    """The file that a decoder's class is written in. None where there is none."""
    file = getattr(sys.modules.get(type(decoder).__module__), "__file__", None)
    return Path(file) if file else None
