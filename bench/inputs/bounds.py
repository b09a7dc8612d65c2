"""What a checkpoint may ask for, checked before memory or time is taken.

A configuration may ask for millions of layers. A tokenizer or a chat template may make terabytes of
a short text. A file of weights may be compressed, or claim more than it holds.
"""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bench.common.bounded import OutOfBounds, bounded
from bench.common.errors import UserError
from bench.common.files import shown

MOST_LAYERS = 10_000  # Most layers, where the number of tensors is not known.
SECONDS = 10.0  # Most time of a tokenizer or a template for a short text.
MEMORY = 2 << 30  # Most bytes of memory for it.
MOST_TOKENS = 16  # Most tokens of a character, and most characters of a token, on average.
MOST_CHARACTERS = 1 << 20  # Most characters that a template makes of a short conversation.
# Every kind of character that a tokenizer may treat in a way of its own, and a long word.
PROBE = "".join(map(chr, range(32, 127))) + f" äöüß Ελ рус 你好 日本 한국 😀\n\t{40 * 'a'} end"
# Entries that say how many layers are made. (max_window_layers says from where on a window holds.)
_LAYERS = re.compile(r"(?!max_).*layers?")
MOST_SHARED = 8  # How often the bytes of a file of tensors may be used.


def check_layers(where: str, config: Mapping, tensors: Iterable[str] | None) -> None:
    """UserError where a configuration asks for more layers than there are tensors.

    where: the checkpoint. config: its config.json. tensors: the names of its tensors. None: they
    are not known before they are loaded.
    """
    most = MOST_LAYERS if tensors is None else len(set(tensors))
    for name, value in _entries(config):
        if _LAYERS.fullmatch(name) and type(value) is int and value > most:
            has = "at most" if tensors is None else "its files hold"
            raise UserError(
                f"config.json of {where!r} has {shown(name)} {shown(value)}; {has} {most} "
                f"{'layers can be loaded' if tensors is None else 'tensors'}"
            )


def _entries(config: Mapping) -> Iterable[tuple[str, object]]:
    """All entries of a configuration and of the configurations in it."""
    for name, value in config.items():
        yield name, value
        if isinstance(value, Mapping):
            yield from _entries(value)


def tensor_names(files: Iterable[Path]) -> list[str] | None:
    """The names of the tensors in files of weights. None: one of them is a pickle."""
    names: list[str] = []
    for path in files:
        if path.suffix != ".safetensors":
            return None
        with safe_open(path, "pt") as opened:
            names += opened.keys()
    return names


def check_zip(path: Path) -> None:
    """UserError where a file is a compressed zip file, a small one of which may hold terabytes.

    Torch writes zip files without compression.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            packed = [each for each in archive.infolist() if each.compress_type]
        if packed:
            raise UserError(
                f"{path} is compressed, and would take {sum(each.file_size for each in packed):,} "
                "bytes; expected a file as torch.save writes it"
            )


def check_sizes(path: Path, tensors: Iterable[Tensor]) -> None:
    """UserError where tensors take much more memory than their file has bytes."""
    size = path.stat().st_size
    wanted = sum(each.numel() * each.element_size() for each in tensors)
    if wanted > MOST_SHARED * size:
        raise UserError(
            f"{path} has {size:,} bytes, and its tensors would take {wanted:,}; the file is "
            "damaged, or was made to fill the memory"
        )


def check_tokenizer(name: str, load: Callable[[], PreTrainedTokenizerBase]) -> None:
    """UserError where a tokenizer panics, or makes far too much of a short text.

    load: makes it, in a process of its own. An exception is not told here. It comes again where the
    tokenizer is used.
    """

    def count() -> list[int]:
        tokenizer = load()
        ids = tokenizer(PROBE, verbose=False).input_ids
        return [len(ids), len(tokenizer.decode(ids))]

    counts = _in_bounds(f"the tokenizer of {name!r}", count)
    if counts and max(counts) > MOST_TOKENS * len(PROBE):
        raise UserError(
            f"the tokenizer of {name!r} makes {counts[0]:,} tokens of a text of {len(PROBE)} "
            f"characters, and {counts[1]:,} characters of these; it is damaged"
        )


def check_chat_template(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """UserError where a tokenizer's chat template makes far too much of a short conversation.

    Messages are tried as texts and as lists of parts, as `Chat` may give either.
    """
    said = [("user", PROBE), ("assistant", "yes"), ("user", "and then?")]
    texts = [{"role": role, "content": content} for role, content in said]
    parts = [each | {"content": [{"type": "text", "text": each["content"]}]} for each in texts]
    for messages in (texts[:1], texts, parts[:1], parts) if tokenizer.chat_template else ():

        def fill(messages: list[dict] = messages) -> int:
            filled = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            return len(filled)

        made = _in_bounds(f"the chat template of {name!r}", fill)
        if made and made > MOST_CHARACTERS:
            raise UserError(
                f"the chat template of {name!r} makes {made:,} characters of a conversation of "
                f"{len(PROBE)}; it is damaged"
            )


def _in_bounds(what: str, work: Callable[[], object]) -> object:
    try:
        return bounded(work, SECONDS, MEMORY)
    except OutOfBounds as error:
        raise UserError(
            f"{what} cannot be used: {error} for a text of {len(PROBE)} characters"
        ) from error
