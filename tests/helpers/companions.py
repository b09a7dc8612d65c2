"""What some built-in decoders cannot do without, made up for tiny models."""

from collections.abc import Mapping

from decoders.decoder import Decoder
from decoders.model.model import Model

# Options that a decoder needs, by name.
NEEDED_OPTIONS: dict[str, str] = {}


def spec_of(name: str) -> str:
    """The spec of a built-in decoder with the options that it needs."""
    options = NEEDED_OPTIONS.get(name)
    return f"{name}:{options}" if options else name


def files_for(decoder: Decoder, model: Model) -> Mapping[str, object]:
    """The files that a decoder cannot do without, as `Decoder.take` receives them."""
    return {}
