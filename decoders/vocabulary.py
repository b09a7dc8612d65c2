"""The tokens that are worth guessing: the most frequent ones of a model's answers, most frequent first.

Most of a head is its projection onto the vocabulary, and most of the vocabulary hardly ever comes. Reading a quarter of it is
a quarter of the memory traffic ("FR-Spec", Zhao et al. 2025, arXiv 2502.14856, narrows a draft model in the same way). A token
that is left out is never guessed; the base model still says it.
"""

import json
from pathlib import Path

from decoders.tree import MOST_BYTES


def read_vocabulary(path: Path, vocab: int) -> list[int]:
    """Token ids from a JSON object's "tokens", for a model of `vocab` tokens.

    ValueError where the file does not hold that, OSError where it cannot be read.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
        tokens = content.get("tokens") if isinstance(content, dict) else None
        if not isinstance(tokens, list) or not tokens:
            raise ValueError('expected an object with a non-empty list of "tokens"')
        for token in tokens:
            if type(token) is not int or not 0 <= token < vocab:
                raise ValueError(f"{str(token)[:40]!r} is not a token of a vocabulary of {vocab}")
        if len(set(tokens)) < len(tokens):
            raise ValueError("a token stands twice")
        return tokens
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a draft vocabulary: {error}") from None
