"""Changes to a file of JSON rows: odd values where sound ones stood."""

import json
import random
from collections.abc import Iterator

# Values that a damaged or hostile file may hold. Python would not write the last ones as JSON.
ODD = (
    "null", "true", "-1", "0", "1.5", "-0.0", "2147483648", "1e308", "1" + "0" * 400, '""', '"x"',
    '"\\ud800"', '"\\u0000"', '"<script>"', '"../../x"', '"1"', "[]", "{}", "[[]]", "[null]",
    '[""]', "[1,2]", "[[0],[0]]", '{"a":1}', "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000,
    "[" * 3000 + "]" * 3000, '{"a":' * 3000, "\\", "'", "\u2028",
)  # fmt: skip
CHANGES = (1, 1, 2, 4)  # Numbers of changes, drawn evenly.
OF_BYTES = 0.2  # Share of changes that are made to bytes, without regard to JSON.
MARK = "\x07here"  # Placeholder of the odd value until the row is text.


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One or a few changes, most of them to a value somewhere inside a row."""
    for _ in range(rng.choice(CHANGES)):
        change = _mutate_bytes if rng.random() < OF_BYTES else _mutate_row
        data = change(data, rng)
    return data


def _mutate_row(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    number = rng.randrange(len(lines))
    try:
        row = json.loads(lines[number])
        places = list(_places(row))
    except (ValueError, RecursionError):
        places = []
    if not places:
        return _mutate_bytes(data, rng)
    where, key = rng.choice(places)
    if rng.random() < 0.15:
        del where[key]
    elif isinstance(where, list) and rng.random() < 0.3:
        where.insert(key, where[key])
    else:
        where[key] = MARK
    text = json.dumps(row, ensure_ascii=rng.random() < 0.5)
    text = text.replace(json.dumps(MARK), rng.choice(ODD))
    lines[number] = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        lines.insert(number, lines[number])
    return b"\n".join(lines)


def _places(value: object) -> Iterator[tuple[dict | list, str | int]]:
    """Every container below a value, with each of its keys or indices."""
    entries = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    odd = rng.choice(ODD).encode()
    one = bytes([rng.randrange(256)])
    inserted = rng.choice((b"", data[start:end], one, b"\n", b"\x00", b"\xff", odd))
    return rng.choice(
        (data[:end], data[:start] + inserted + data[end:], data[:end] + inserted + data[end:])
    )
