"""The names of decoders. Classes are loaded when they are asked for.

BUILT_IN lists those of this package. Another package adds its own by an entry point:

    [project.entry-points."medusa_bench.decoders"]
    mine = "my_package.my_module:MyDecoder"

Nothing in this module needs torch.
"""

import dataclasses
import sys
import typing
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from decoders.options import parsed, written_options
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


# What others call these decoders.
OTHER_NAMES = {
    "medusa": "static",
    "medusa-1": "static",
    "medusa-2": "static",
    "medusa-plus": "dynamic",
    "medusa-dynamic": "dynamic",
    "baseline": "greedy",
    "vanilla": "greedy",
    "autoregressive": "greedy",
    "generate": "hf-greedy",
    "pld": "prompt-lookup",
    "token-recycling": "recycling",
}


class UnknownName(ValueError):
    """A decoder or an option that does not exist."""

    def __init__(
        self,
        kind: str,
        name: str,
        available: Iterable[str],
        other_names: Mapping[str, str] | None = None,
    ) -> None:
        """other_names: what others call the available ones. None: nothing else."""
        available, others = sorted(available), other_names or {}
        asked = name.lower().replace("_", "-")
        near = get_close_matches(asked, [*available, *others], 1)
        hint = f" Did you mean {others.get(near[0], near[0])!r}?" if near else ""
        names = ", ".join(available) or "none"
        super().__init__(f"unknown {kind} {name!r}.{hint} Available: {names}.")


class NotADecoder(ValueError):
    """An entry point that leads to no decoder, or that cannot be told from another one."""


def plugins() -> dict[str, list[EntryPoint]]:
    """By name, the entry points of other packages. A name with : , or = cannot be asked for."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=ENTRY_POINTS):
        if not set(point.name) & set(":,="):
            found.setdefault(point.name, []).append(point)
    return found


def package_of(point: EntryPoint) -> str:
    """The package that an entry point is of, with its version."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def names() -> list[str]:
    """The names of all decoders, sorted."""
    return sorted({*BUILT_IN, *plugins()})


def check(spec: Spec) -> None:
    """Raise UnknownName for a name that no decoder has, or an option that the decoder lacks.

    Nothing is imported. So the options of another package's decoder are not known here.
    """
    if spec.name in BUILT_IN:
        _check_options(spec, {option.name for option in written_options(BUILT_IN[spec.name])})
    elif spec.name not in plugins():
        raise UnknownName("decoder", spec.name, names(), OTHER_NAMES)


def _check_options(spec: Spec, known: set[str]) -> None:
    for option in spec.options:
        if option not in known:
            raise UnknownName(f"option of decoder {spec.name!r}", option, known)


def load(name: str) -> "type[Decoder]":
    """The class of a decoder.

    UnknownName where no decoder has this name. NotADecoder where a package does not hold the class
    that its entry point names. The package may raise anything else while it is imported.
    """
    if name in BUILT_IN:
        return _imported(BUILT_IN[name])
    points = plugins().get(name, [])
    if not points:
        raise UnknownName("decoder", name, names(), OTHER_NAMES)
    if len({point.value for point in points}) > 1:
        packages = " and ".join(sorted(map(package_of, points)))
        raise NotADecoder(f"decoder {name!r} is of two packages, {packages}; uninstall one of them")
    cls = points[0].load()
    is_decoder = isinstance(cls, type) and issubclass(cls, _imported(BASE))
    if not is_decoder or "__dataclass_fields__" not in vars(cls):
        raise NotADecoder(
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


def files_beside() -> list[str]:
    """The names of all files that decoders of this package look for beside a model, sorted."""
    return sorted({*weight_files(), *(file for name in BUILT_IN for file in load(name).fitted)})


def options(name: str) -> set[str]:
    """The names of the options of a decoder. Raises what `load` raises."""
    return {field.name for field in dataclasses.fields(load(name)) if field.init}


def make(spec: Spec, defaults: Mapping[str, object] | None = None) -> "Decoder":
    """The decoder of a spec, not yet bound to a model.

    defaults: values of options, used where the decoder has the option and the spec does not set it.
    A None among them is ignored. ValueError (or its subclass UnknownName) says what is wrong with a
    name or a value. A decoder of another package may raise anything else.
    """
    cls = load(spec.name)
    known = options(spec.name)
    _check_options(spec, known)
    shared = {
        name: str(value)
        for name, value in (defaults or {}).items()
        if name in known and value is not None
    }
    types_of = typing.get_type_hints(cls)
    values = {
        name: parsed(text, types_of[name], f"decoder {str(spec)!r}: option {name}")
        for name, text in (shared | spec.options).items()
    }
    try:
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"decoder {str(spec)!r}: {error}") from error


def source_of(decoder: "Decoder") -> Path | None:
    """The file that a decoder's class is written in. None where there is none."""
    file = getattr(sys.modules.get(type(decoder).__module__), "__file__", None)
    return Path(file) if file else None
