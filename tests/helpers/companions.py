"""What some built-in decoders cannot do without, made up for tiny models."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file

from decoders.decoder import Decoder
from decoders.draft_model import DRAFTING
from decoders.eagle.head import FILE as EAGLE
from decoders.engine.engine import Engine
from decoders.hydra.heads import FILE as HYDRA
from decoders.model.model import Model
from tests.helpers.drafters import eagle_tensors, hydra_tensors, tiny_eagle, tiny_hydra
from tests.helpers.models import tiny_llama

# Options that a decoder needs, by name.
NEEDED_OPTIONS = {"draft": "model=tiny", "assisted": "model=tiny"}


def spec_of(name: str) -> str:
    """The spec of a built-in decoder with the options that it needs."""
    options = NEEDED_OPTIONS.get(name)
    return f"{name}:{options}" if options else name


def files_for(decoder: Decoder, model: Model) -> Mapping[str, object]:
    """The files and models that a decoder cannot do without, as `Decoder.take` receives them."""
    makers = {DRAFTING: draft_model, HYDRA: tiny_hydra, EAGLE: tiny_eagle}
    needed = [*decoder.models, *decoder.weights]
    return {name: make(model) for name, make in makers.items() if name in needed}


def draft_model(model: Model, seed: int = 7, **changes) -> Engine:
    """A smaller model with the tokens of `model`."""
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
    tokens = dict(vocab_size=model.vocab, max_position_embeddings=model.context)
    return Engine(tiny_llama(seed, **size | tokens | changes))


def write_weights(folder: Path) -> None:
    """Put the weights that built-in decoders cannot do without beside a tiny checkpoint."""
    for name, tensors in {HYDRA: hydra_tensors(), EAGLE: eagle_tensors()}.items():
        save_file(tensors, folder / name)
