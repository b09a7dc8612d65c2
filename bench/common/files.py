"""Writes files that survive a crash, and reads files without trusting them.

Writing: a file is replaced as a whole, or a row is appended as a whole. The content is on the disk
before the call returns. Only one process at a time writes a file of rows (`sole_writer`).

Reading: a line or a document has at most LONGEST bytes; a longer line is not read to its end. An
error message names the file and the line. What JSON may hold is in `bench.common.strict_json`.
"""

import gzip
import json
import os
import shlex
import socket
import stat
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from glob import escape
from hashlib import sha256
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from bench.common.errors import UserError
from bench.common.strict_json import parse_json, parse_row

LONGEST = 16 << 20  # Bytes of a line of JSON, or of a JSON document.
LONGEST_NAME = 200  # Bytes of a file's name. File systems take 255.
NAMED = 3  # Lines of a file that warnings name. Further ones are counted.


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file. Readers find the old or the new content, never half of it.

    This also holds after a crash.
    """
    for leftover in path.parent.glob(f".{escape(path.name)}.*.tmp"):
        process = leftover.name.split(".")[-2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):  # Killed while it wrote.
            leftover.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as out:
            out.write(content.encode() if isinstance(content, str) else content)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def json_line(row: dict) -> str:
    """A row as a line of a JSON-lines file, with its newline.

    UserError where the line would be too long to be read again. Halves of surrogate pairs, which a
    tokenizer may leave in a text, are no Unicode, and become question marks.
    """
    line = json.dumps(row, ensure_ascii=False) + "\n"
    return checked_length(line.encode(errors="replace").decode(), "a row")


def checked_length(content: str, what: str) -> str:
    """The same content. UserError where it is longer than what is read (LONGEST)."""
    if len(content) > LONGEST // 4 and len(content.encode()) > LONGEST:
        raise UserError(
            f"{what} would be {len(content.encode()) >> 20} MiB long, and could not be read again; "
            f"at most {LONGEST >> 20} MiB are"
        )
    return content


def append_synced(path: Path, row: dict) -> int:
    """Append a row, sync it to disk, and return the byte offset where it begins.

    OSError where that fails; nothing of the row is left then. The file must end with a whole line
    (`mend_end`), and this process must be its only writer (`sole_writer`). UserError where it is a
    symbolic link.
    """
    refuse_links([path])
    content = json_line(row).encode()
    is_new = not path.exists()
    with path.open("ab", buffering=0) as out:
        start = os.fstat(out.fileno()).st_size
        try:
            written = out.write(content)
            while written < len(content):  # A disk that fills up may write only a part.
                written += out.write(content[written:])
            os.fsync(out.fileno())
        except OSError:
            with suppress(OSError):
                out.truncate(start)
            raise
    if is_new:
        _sync_folder(path.parent)
    return start


def mend_end(path: Path) -> str | None:
    """Make a file of rows end with a whole row.

    A last line that a crash cut off is moved to <name>.torn. Returns a warning about it. None:
    there was no such line. UserError where the file is a symbolic link.
    """
    refuse_links([path])
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LONGEST))
        tail = file.read().rpartition(b"\n")[2]
        if not tail:
            return None
        if _is_object(tail):  # Only its newline is missing.
            file.write(b"\n")
            os.fsync(file.fileno())
            return None
        aside = path.with_name(path.name + ".torn")
        with aside.open("ab") as torn:
            torn.write(tail + b"\n")
            torn.flush()
            os.fsync(torn.fileno())
        file.truncate(size - len(tail))
        os.fsync(file.fileno())
    return (
        f"the last line of {path} was torn by a crash; it was moved to {aside.name}, and is made "
        "again"
    )


def refuse_links(paths: Iterable[Path]) -> None:
    """UserError where one of the paths is a symbolic link.

    A folder that was received from someone may lead to any file here, which would be changed.
    """
    for path in paths:
        if path.is_symlink():
            raise UserError(
                f"{path} is a symbolic link, and what it points to would be changed; put a copy in "
                "its place"
            )


def refuse_links_in(folder: Path) -> None:
    """UserError where a folder, or one of its folders, holds a symbolic link."""
    try:
        refuse_links(path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    except OSError as error:
        raise unreadable(folder, error) from error


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def _sync_folder(folder: Path) -> None:
    """Sync a folder to disk. Only then does a new file in it survive a crash."""
    with suppress(OSError):  # Not every file system can sync a folder.
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def writing(place: object, advice: str = "") -> Iterator[None]:
    """A context in which an OSError becomes a UserError: `place` cannot be written.

    advice: what the user can do next, for the end of the message.
    """
    try:
        yield
    except OSError as error:
        end = f"; {advice}" if advice else ""
        raise UserError(f"{place} cannot be written: {error.strerror or error}{end}") from error


@contextmanager
def sole_writer(path: Path, wait_s: float = 0) -> Iterator[None]:
    """A context in which this process is the only one that writes `path`.

    It waits up to `wait_s` seconds for another process to finish. UserError names that process. The
    operating system holds the lock, so the lock ends with the process, even if that is killed.
    """
    lock_file = path.with_name(f".{path.name}.lock")
    refuse_links([lock_file])
    holder = _first_line(lock_file)
    lock = FileLock(lock_file)
    with writing(lock_file):
        try:
            lock.acquire(timeout=wait_s)
        except Timeout:
            raise UserError(
                f"{path} is being written by {holder or 'another process'}; wait for its end, or "
                "stop it"
            ) from None
    try:
        now = datetime.now().isoformat(sep=" ", timespec="seconds")
        command = shlex.join(sys.argv)[:200]
        with suppress(OSError):  # On a full disk the lock holds without this note.
            lock_file.write_text(
                f"process {os.getpid()} on {socket.gethostname()} since {now} ({command})\n",
                encoding="utf-8",
            )
        yield
    finally:
        lock.release()


def _first_line(path: Path) -> str:
    with suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
        return file.readline(500).strip()
    return ""


def unreadable(path: Path, error: Exception) -> UserError:
    """The error to raise where a file or a folder cannot be read because of another error."""
    return UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def read_lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(line number, byte offset, line with its end) of every line of a file.

    A file whose name ends in .gz is unzipped. UserError where the file cannot be read or a line
    is longer than LONGEST.
    """
    check_regular(path)
    number = offset = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            while line := file.readline(LONGEST + 1):
                number += 1
                if len(line) > LONGEST:
                    raise UserError(f"{path}, line {number} is longer than {LONGEST >> 20} MiB")
                yield number, offset, line
                offset += len(line)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error


def read_rows(path: Path, nan: bool = False) -> Iterator[tuple[int, dict]]:
    """(line number, object) for every line of a JSON-lines file. Empty lines are left out.

    nan: as in `parse_json`. UserError names a line that is no object.
    """
    for number, _, line in read_lines(path):
        if line.strip():
            yield number, parse_row(line, f"{path}, line {number}", nan)


def sound_rows(path: Path, bad: Callable[[str], None]) -> Iterator[tuple[int, dict]]:
    """`read_rows` for files of others: one bad line does not hide the rest. NaN is allowed.

    bad: called with what is wrong about a line that is no object. The line is left out.
    """
    for number, _, line in read_lines(path):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = parse_row(line, where, nan=True)
        except UserError as error:
            bad(str(error) if line.endswith(b"\n") else f"{where} is torn")
        else:
            yield number, row


def tell_left_out(path: Path, problems: Sequence[str], tell: Callable[[str], None]) -> None:
    """Tell of the lines of a file that were left out: the first ones with what is wrong."""
    for problem in problems[:NAMED]:
        tell(f"{problem}; it is left out")
    if len(problems) > NAMED:
        tell(f"{path}: {len(problems) - NAMED} more lines are left out")


def read_document(path: Path) -> bytes:
    """The content of a JSON document. UserError where it is unreadable or longer than LONGEST."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(content) > LONGEST:
        raise UserError(f"{path} is longer than {LONGEST >> 20} MiB")
    return content


def check_regular(path: Path) -> None:
    """UserError where a path is no regular file. Reading a pipe or a device might never end."""
    try:
        kind = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    if not stat.S_ISREG(kind):
        raise UserError(
            f"{path} is {'a folder' if stat.S_ISDIR(kind) else 'a pipe or device'}; expected a file"
        )


def digest_of(path: Path) -> str:
    """The sha256 of a file's content. OSError where it cannot be read."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def shown(value: object, most: int = 60) -> str:
    """A value from a file as an error message quotes it: short, on one line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # An integer of too many digits.
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= most else text[:most] + "..."


def safe_name(text: str) -> str:
    """`text` in characters that any file system takes. A long one is cut, and ends in its digest.

    >>> safe_name("org/model:nodes=16")
    'org-model-nodes-16'
    """
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in text).lstrip("-.")
    if len(name.encode()) > LONGEST_NAME:
        digest = sha256(text.encode()).hexdigest()[:12]
        name = name.encode()[: LONGEST_NAME - 13].decode(errors="ignore") + "-" + digest
    return name
