"""Turns pydantic's errors into words for the person who has the file."""

from pydantic import ValidationError

from bench.common.files import shown

_EXPECTED = {"dataclass_type": "an object", "dict_type": "an object", "model_type": "an object"}


def first_error(error: ValidationError) -> str:
    """The first thing that is wrong: which field, what was found, and what was expected.

    Such as "it has no 'seed'" or "nodes[3] is '64', expected a valid integer". A validator's own
    ValueError is returned as it is.
    """
    found = error.errors(include_url=False)[0]
    field = _field_name(found["loc"])
    if found["type"] == "missing":
        return f"it has no {field!r}"
    if found["type"] == "value_error":
        return str(found["ctx"]["error"])
    words = found["msg"].removeprefix("Input should be ").replace("String should", "it to")
    expected = _EXPECTED.get(found["type"], words)
    return f"{field or 'it'} is {shown(found['input'])}, expected {expected}"


def _field_name(location: tuple[str | int, ...]) -> str:
    """The path of a field, as a reader of the file looks for it.

    >>> _field_name(("sessions", 0, "start"))
    'sessions[0].start'
    """
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return name.removeprefix(".")
