"""A decoder's own files: those that were fitted to the model, and weights.

A decoder declares them by name (`Decoder.fitted`, `Decoder.weights`). They are beside the model, or
where the decoder's options say. This module finds them, reads them safely, and hands them over.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from bench.common.errors import UserError, warn
from bench.common.files import read_document
from bench.common.strangers import message_of
from bench.common.strict_json import parse_json
from bench.inputs.checkpoints import find, find_weights
from bench.inputs.tensor_files import read_tensors
from decoders.decoder import Decoder, declared
from decoders.model.model import Model

# Ends of names of a base model's embedding in files of weights.
EMBEDDINGS = ("embed_tokens.weight", "input_embed_fn.weight")
ROWS_COMPARED = 64
ALIKE = 0.9  # Least median cosine of rows of the same embedding.


def read_fitted(path: Path, parse: Callable[[object], object]) -> object:
    """The content of a JSON file, as `parse` returns it.

    ValueError names the file where it is not JSON or not what `parse` expects, UserError where it
    cannot be read.
    """
    content = read_document(path)
    try:
        value = parse_json(content)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def take_named_files(decoder: Decoder) -> None:
    """Hand over the fitted files that the options name, if they name any. Needs no model.

    ValueError where one has the wrong content, or is missing and the decoder needs it.
    """
    if any(decoder.path_of(name) is not None for name in declared(decoder.fitted)):
        decoder.take(_named_files(decoder))


def _named_files(decoder: Decoder) -> dict[str, object]:
    files: dict[str, object] = {}
    for name, parse in declared(decoder.fitted).items():
        path = decoder.path_of(name)
        if path is not None and Path(path).is_file():
            files[name] = read_fitted(Path(path), parse)
    return files


def take_files(
    decoder: Decoder, where: str, model: Model, models: Mapping[str, Model] | None = None
) -> None:
    """Hand over everything that a decoder declares.

    where: the folder or hub id of the model. models: the loaded `Decoder.models`, by name. None:
    it has none. ValueError where a file has the wrong content, or where weights are missing.
    UserError where a file cannot be read.
    """
    files = _named_files(decoder) | dict(models or {})
    for name, parse in declared(decoder.fitted).items():
        if decoder.path_of(name) is None and (path := find(where, name)):
            files[name] = read_fitted(Path(path), parse)
    for name, build in declared(decoder.weights).items():
        path = _weights_path(decoder, name, where)
        try:
            tensors = read_tensors(path)
            files[name] = build(tensors, model)
            warn_of_another_base(path, tensors, model)
        except UserError:
            raise
        except ValueError as error:
            raise ValueError(f"{path}: {message_of(error)}") from error
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    decoder.take(files)


def warn_of_another_base(path: str, tensors: Mapping[str, Tensor], model: Model) -> None:
    """Warn where a file's copy of the base model's embedding is not this model's.

    The copy is not used, and nothing else tells that the weights were trained for another model.
    Some rows are compared by their directions, as quantised embeddings differ a little.
    """
    own = model.lm.get_input_embeddings().weight
    rows = torch.linspace(0, len(own) - 1, ROWS_COMPARED).long()
    ours = own[rows.to(own.device)].detach().float().cpu()
    for name, tensor in tensors.items():
        if not name.endswith(EMBEDDINGS) or tensor.shape != own.shape:
            continue
        theirs = tensor[rows].float()
        if torch.cosine_similarity(ours, theirs, dim=-1).median() < ALIKE:
            warn(
                f"{name!r} of {path} is not the embedding of this model: the weights were trained "
                "for another one, and may draft badly here"
            )


def _weights_path(decoder: Decoder, name: str, where: str) -> str:
    """The path of a file of weights. ValueError where there is no such file."""
    named = decoder.path_of(name)
    if named is not None:
        if not Path(named).is_file():
            what = "is a folder" if Path(named).is_dir() else "does not exist"
            raise ValueError(f"it needs {name}, but {named} {what}")
        return named
    path = find_weights(where, name)
    if path is None:
        raise ValueError(
            f"it needs {name}, which is not beside the model, in {where}; put it there, or name it "
            "by the decoder's option, such as path=FILE"
        )
    return path
