"""Which files a model is made of, as one text: a commit of the hub, or a digest of the files."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from transformers.utils.hub import extract_commit_hash

from bench.common.files import digest_of
from bench.inputs.checkpoints import find

ABOUT = (".md", ".png", ".jpg", ".svg", ".pdf")  # Endings of texts about a model, and of pictures.
SAMPLE_BYTES = 1 << 20  # Bytes of each end of a file that go into the identity of a folder.


def identity_of(where: str) -> str:
    """A quick identity of a model's files: the commit on a hub, or a digest of a folder or a file.

    The digest covers the name, the size and both ends (SAMPLE_BYTES) of every file. A change in the
    middle of a larger file that keeps its size is missed: see `contents_of`.
    """
    return _identity(where, _digest_of_ends)


def contents_of(where: str) -> str:
    """The commit of a model on a hub, or a digest of the whole content of a folder or a file.

    It reads every byte, which takes about a second for each GB.
    """
    return _identity(where, digest_of)


def _identity(where: str, digest_file: Callable[[Path], str]) -> str:
    """As `identity_of`, with the name, the size and `digest_file` of every file."""
    if Path(where).is_dir():
        paths = sorted(path for path in Path(where).iterdir() if _may_decide(path))
    elif Path(where).is_file():
        paths = [Path(where)]
    else:
        return extract_commit_hash(find(where, "config.json"), None) or where
    digest = sha256()
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size} {digest_file(path)}\n".encode())
    return digest.hexdigest()


def _may_decide(path: Path) -> bool:
    """Whether a file of a folder may decide what the model computes.

    Texts about it, pictures and hidden files do not.
    """
    return path.is_file() and path.name[0] != "." and path.suffix.lower() not in ABOUT


def _digest_of_ends(path: Path) -> str:
    with path.open("rb") as content:
        ends = content.read(SAMPLE_BYTES)
        content.seek(max(0, path.stat().st_size - SAMPLE_BYTES))
        ends += content.read(SAMPLE_BYTES)
    return sha256(ends).hexdigest()
