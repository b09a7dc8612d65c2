"""Other language models that a decoder drafts with (`Decoder.models`)."""

from transformers import PreTrainedTokenizerBase

from bench.inputs.loader import Loaded, load
from bench.inputs.locations import check_model_name
from decoders.decoder import Decoder
from decoders.model.model import Model


def check_draft_models(decoder: Decoder) -> None:
    """UserError where a decoder drafts with a model that cannot be one. Nothing is loaded."""
    for name in decoder.models:
        check_model_name(decoder.path_of(name))


def load_draft_models(decoder: Decoder, base: Loaded) -> dict[str, Model]:
    """The models that a decoder drafts with, by name, on the base model's device.

    Their own Python files are executed only if the base model's may be.

    UserError where one cannot be loaded, ValueError where its tokens are not the base model's.
    """
    return {name: _load(decoder.path_of(name), base) for name in decoder.models}


def _load(path: str, base: Loaded) -> Model:
    device, dtype = base.model.device, str(base.model.dtype).removeprefix("torch.")
    loaded = load(path, str(device), dtype, trust_remote_code=base.trust_remote_code)
    if difference := _difference(loaded.tokenizer, base.tokenizer):
        raise ValueError(
            f"the vocabulary of {path!r} is another one: {difference}; a draft model must have "
            "the base model's"
        )
    return loaded.model


def _difference(theirs: PreTrainedTokenizerBase, ours: PreTrainedTokenizerBase) -> str | None:
    """The first token id that stands for two different tokens. None: there is none.

    One of the two may have further tokens, such as one for padding.
    """
    their_tokens, our_tokens = (
        {token: text for text, token in each.get_vocab().items()} for each in (theirs, ours)
    )
    for token in sorted(their_tokens.keys() & our_tokens.keys()):
        if their_tokens[token] != our_tokens[token]:
            return f"its token {token} is {their_tokens[token]!r}, not {our_tokens[token]!r}"
    return None
