"""JSON from files and programs of others: strict UTF-8, finite numbers, not nested too deeply."""

import json
import math

from bench.common.errors import UserError

DEEPEST = 100  # Lists and objects within each other.


def parse_row(line: bytes, where: str, nan: bool = False) -> dict:
    """The object of a line. UserError says what the line holds instead, and names `where`.

    nan: as in `parse_json`.
    """
    try:
        row = parse_json(line, nan)
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}; expected one object a line") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected one object a line, found a {type(row).__name__}")
    return row


def parse_json(content: bytes, nan: bool = False) -> object:
    """A JSON value of strict UTF-8, finite numbers, and text that can be written again.

    nan: allow NaN all the same. ValueError says what is wrong.
    """
    try:
        value = json.loads(
            content.decode("utf-8-sig"),
            parse_constant=_nan if nan else _not_a_number,
            parse_float=_finite,
        )
        _check_depth(value, content)
        if b"\\u" in content:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is not Unicode") from None
    except ValueError as error:
        raise ValueError(str(error).split(";")[0]) from None
    return value


def _check_depth(value: object, content: bytes) -> None:
    """ValueError where a value is nested deeper than DEEPEST. `content`: its JSON."""
    if content.count(b"[") + content.count(b"{") <= DEEPEST:
        return
    level = [value]
    for _ in range(DEEPEST):
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for members in inner for each in members if isinstance(each, (dict, list))]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _not_a_number(text: str) -> float:
    raise ValueError(f"{text} is not a number in JSON")


def _nan(text: str) -> float:
    return math.nan if text == "NaN" else _not_a_number(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is larger than any number here")
    return value
