"""What libraries say while a model is loaded, as one clear line."""

import json
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from safetensors import SafetensorError
from transformers.utils import logging

from bench.common.strangers import message_of, strangers_code, told

# What transformers says of a repository without weights, such as one of GGUF files.
NO_WEIGHTS = re.compile(r"does not appear to have a file named \S+ or model\.safetensors")


@contextmanager
def readable_errors(what: str) -> Iterator[None]:
    """Silence the libraries' logging, and turn their errors into a UserError of one line.

    what: the quoted name of the model, as a message says it.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with strangers_code(lambda error: _in_words(what, error)):
            yield
    finally:
        logging.set_verbosity(verbosity)
        logging.enable_progress_bar()


def _in_words(what: str, error: BaseException) -> str:
    """What a library's error says about a model. what: its quoted name."""
    if isinstance(error, pickle.UnpicklingError):
        return (
            f"a file of {what} is not a plain tensor file (a pickle may hold code) and was not "
            "opened; expected safetensors, or a pickle of tensors alone"
        )
    if isinstance(error, (SafetensorError, json.JSONDecodeError, UnicodeDecodeError)):
        return f"a file of {what} is damaged: {message_of(error)}"
    if isinstance(error, ImportError):
        return f"{what} needs a package that is not installed: {message_of(error)}"
    if isinstance(error, KeyError):
        return (
            f"model {what} cannot be loaded: transformers {transformers.__version__} stops at "
            f"{message_of(error)}; either config.json lacks it, or this version does not know it"
        )
    if NO_WEIGHTS.search(str(error)):
        return (
            f"{what} has no weights as transformers reads them: {message_of(error)}; where it has "
            "GGUF files, download one and give its path"
        )
    if "trust_remote_code" in str(error):
        return (
            f"{what} brings Python code of its own, which was not executed; read it, and if you "
            "trust it, give --trust-remote-code"
        )
    return f"model {what} cannot be loaded: {told(error)}"
