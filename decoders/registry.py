"""Names of decoders. A decoder is a class under `@register(name)` in a module of this package, or in another package

    [project.entry-points."medusa_bench.decoders"]
    mine = "my_package.my_module:MyDecoder"

A decoder is asked for by a spec, `name[:option=value]...`, such as `dynamic:nodes=32:normalise=vocab`.
"""

import dataclasses
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

from decoders.decoder import Decoder

ENTRY_POINTS = "medusa_bench.decoders"
_registered: dict[str, type[Decoder]] = {}


class UnknownName(ValueError):
    """A decoder or an option that does not exist."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        available = sorted(available)
        near = get_close_matches(name, available, 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        super().__init__(
            f"unknown {kind} {name!r}.{hint} Available: {', '.join(available) or 'none'}."
        )


def register(name: str) -> Callable[[type[Decoder]], type[Decoder]]:
    def under_name(cls: type[Decoder]) -> type[Decoder]:
        _registered[name] = cls
        return cls

    return under_name


def available() -> dict[str, Callable[[], type[Decoder]]]:
    """Every decoder by name, as a function that loads its class."""
    package = import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        import_module(
            f"{__package__}.{module.name}"
            + (".decoder" if module.ispkg and module.name not in ("model", "engine") else "")
        )
    plugins = {point.name: point.load for point in entry_points(group=ENTRY_POINTS)}
    return plugins | {name: lambda cls=cls: cls for name, cls in _registered.items()}


def make(spec: str, defaults: Mapping[str, object] | None = None) -> Decoder:
    """The decoder of a spec, not yet bound to a model.

    `defaults` are options for every decoder that has them; the spec's own win. ValueError (UnknownName among them) says
    what is wrong with a name or a value.
    """
    name, *given = spec.split(":")
    known = available()
    if name not in known:
        raise UnknownName("decoder", name, known)
    cls = _loaded(name, known)
    types_ = typing.get_type_hints(cls)
    fields = {field.name: types_[field.name] for field in dataclasses.fields(cls) if field.init}
    options = {
        key: _parse(str(value), fields[key], f"decoder {spec!r}: option {key}")
        for key, value in (defaults or {}).items()
        if key in fields and value is not None  # which is an option that was not given
    }
    seen: set[str] = set()
    for assignment in given:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise ValueError(f"decoder {spec!r}: {assignment!r} is not option=value")
        if key not in fields:
            raise UnknownName(f"option of decoder {name!r}", key, fields)
        if key in seen:
            raise ValueError(f"decoder {spec!r}: option {key} stands twice")
        seen.add(key)
        options[key] = _parse(value, fields[key], f"decoder {spec!r}: option {key}")
    try:
        return cls(**options)
    except ValueError as error:
        raise ValueError(f"decoder {spec!r}: {error}") from error
    except Exception as error:
        raise ValueError(
            f"decoder {spec!r} cannot be made: {type(error).__name__}: {error}"
        ) from error


def _loaded(name: str, known: Mapping[str, Callable[[], type[Decoder]]]) -> type[Decoder]:
    """The class of a decoder; ValueError where somebody's package does not have it, or not as one."""
    try:
        cls = known[name]()
    except Exception as error:
        raise ValueError(
            f"decoder {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (
        isinstance(cls, type) and issubclass(cls, Decoder) and "__dataclass_fields__" in vars(cls)
    ):
        raise ValueError(
            f"decoder {name!r} is {cls!r}; expected a class under @dataclass, derived from decoders.base.Decoder"
        )
    return cls


def source_of(decoder: Decoder) -> Path | None:
    """The file that its class is written in; None where there is none, as in a notebook."""
    file = getattr(sys.modules.get(type(decoder).__module__), "__file__", None)
    return Path(file) if file else None


def open_options(spec: str) -> set[str]:
    """The options that the decoder of a spec has and that the spec itself leaves open."""
    name, *given = spec.split(":")
    fields = {field.name for field in dataclasses.fields(available()[name]()) if field.init}
    return fields - {assignment.partition("=")[0] for assignment in given}


def _parse(text: str, wanted: object, where: str) -> object:
    choices = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for kind in choices:
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if kind in (int, float, str):
            try:
                return kind(text)
            except ValueError:
                continue
    expected = " or ".join(
        getattr(kind, "__name__", str(kind)) for kind in choices if kind is not types.NoneType
    )
    raise ValueError(f"{where} is {text!r}; expected {expected}")
