"""The elements of a file that is one JSON array, read one by one: it may not fit into memory."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from bench.common.errors import UserError
from bench.common.files import LONGEST, check_regular, unreadable
from bench.common.strict_json import parse_json

CHUNK = 1 << 20  # Characters that are read at once.
NEAR_END = 16  # A JSON error this close to the end of a chunk may come from the cut.
BETWEEN = re.compile(r"[\s,]*")


def begins_array(path: Path) -> bool:
    """Whether the first character of a file opens a list. UserError where it cannot be read."""
    with _opened(path, errors="replace") as file:
        return file.read(CHUNK).lstrip().startswith("[")


def read_array(path: Path) -> Iterator[tuple[str, object]]:
    """(place as a message says it, element) of every element; each is an object or a list.

    A file whose name ends in .gz is unzipped. The caller has checked `begins_array`. UserError
    where an element is not JSON, or is longer than LONGEST, or where the array has no end. Commas
    between elements are not checked.
    """
    decoder = json.JSONDecoder()
    with _opened(path) as file:
        # `text` is the part of the file in memory. Up to index `at` it has been dealt with.
        text = file.read(CHUNK)
        at = text.index("[") + 1
        number = 1
        while True:
            where = f"{path}, element {number}"
            at = BETWEEN.match(text, at).end()
            if text[at : at + 1] == "]":
                if (text[at + 1 :] + file.read(CHUNK)).strip():
                    raise UserError(f"{path} goes on after the end of its array; expected one")
                return
            if at < len(text):
                if text[at] not in "{[":
                    raise UserError(f"{where}: expected an object or a list")
                try:
                    _, end = decoder.raw_decode(text, at)
                    element = parse_json(text[at:end].encode())
                except RecursionError:
                    raise UserError(f"{where} is nested too deeply") from None
                except json.JSONDecodeError as error:
                    # An element that goes on after the end of the text is tried again with more.
                    is_cut_off = error.msg.startswith("Unterminated")
                    if not is_cut_off and error.pos < len(text) - NEAR_END:
                        raise UserError(f"{where} is not JSON: {error.msg}") from error
                except ValueError as error:
                    raise UserError(f"{where} is not JSON: {error}") from error
                else:
                    yield where, element
                    at, number = end, number + 1
                    continue
            # Here the next element is not in the text as a whole: read on.
            if len(text) - at > LONGEST:
                raise UserError(f"{where} is longer than {LONGEST >> 20} MiB")
            more = file.read(CHUNK)
            if not more:
                raise UserError(f"{where} is not JSON: the file is cut off")
            text, at = text[at:] + more, 0


@contextmanager
def _opened(path: Path, errors: str = "strict") -> Iterator[TextIO]:
    """A file as text. UserError where it cannot be read."""
    check_regular(path)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig", errors=errors) as file:
            yield file
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error.reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
