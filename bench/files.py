"""Writing so that a crash leaves whole files, and reading JSON lines with errors that name the line."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from bench.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader finds the old or the new content, never half of one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def json_line(row: dict) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def append_synced(path: Path, row: dict) -> None:
    """Put one row on disk, whole, before returning. The file must not end within a line."""
    with path.open("a", encoding="utf-8") as out:
        out.write(json_line(row))
        out.flush()
        os.fsync(out.fileno())


def read_rows(path: Path, torn: bool = False) -> Iterator[tuple[int, dict]]:
    """(line number, object) for every line of a JSON-lines file; UserError names the line that is none.

    With `torn`, a last line without its newline that is no JSON is left out: a crash cut it off.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if torn and number == len(lines):
                return
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected an object, found {type(row).__name__}")
        yield number, row


def safe_name(text: str) -> str:
    """`text` in characters that any file system takes.

    >>> safe_name("org/model:nodes=16")
    'org-model-nodes-16'
    """
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text).lstrip("-.")
