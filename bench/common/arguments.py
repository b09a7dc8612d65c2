"""Types of numeric command-line arguments: what does not make sense is refused where it is given."""

import argparse
import math
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """An integer from `least` on."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or value >= 1 << 63:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not an integer from {least} on")
        return value

    return parse


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number above 0")
    return value


def temperatures(text: str) -> list[float]:
    """Numbers from 0 on, with commas between them."""
    try:
        values = [float(each) for each in text.split(",")]
    except ValueError:
        values = [math.nan]
    if not all(0 <= value < math.inf for value in values):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a list of temperatures such as 0,0.7"
        )
    return values
