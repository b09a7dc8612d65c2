"""Numbers of steps on a command line."""

import argparse

MOST_STEPS = 1000


def step_numbers(text: str) -> list[int]:
    """An argument type: numbers from 1 on and ranges of them, with commas between them.

    >>> step_numbers("1,3-5")
    [1, 3, 4, 5]
    """
    try:
        ranges = [[int(end) for end in part.split("-", 1)] for part in text.split(",")]
        steps = [step for each in ranges for step in range(each[0], each[-1] + 1)]
    except ValueError:
        steps = []
    if not steps or min(steps) < 1 or len(steps) > MOST_STEPS:
        raise argparse.ArgumentTypeError(
            f"{text!r} are no steps; expected numbers from 1 on, such as 1,2,5-8"
        )
    return steps
