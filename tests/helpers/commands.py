"""Command lines, run in this process."""

import json
import sys

import pytest

from bench import run as command
from bench.common.errors import exit_cleanly

QUESTIONS = [
    {"question_id": 1, "category": "math", "turns": ["1 + 1?", "And twice?"]},
    {"question_id": 2, "category": "writing", "turns": ["A line, please.", "Another."]},
    {"question_id": 7, "category": "stem", "turns": ["Why is it dark at night?"]},
]


def bench(*arguments: object, draws: bool = False) -> int:
    """Run the command line in this process; its exit status.

    draws: whether figures are drawn, which takes longer than a run of a tiny model.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["bench.run", *map(str, arguments)])
        if not draws:
            patch.setattr("bench.reporting.comparison.draw_all", lambda *_: [])
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(command.main)
    return ended.value.code


def basics(model, questions, out) -> list[object]:
    return [
        "--model",
        model,
        "--questions",
        questions,
        "--out",
        out,
        "--max-new-tokens",
        24,
        "--device",
        "cpu",
    ]


def without_times(path) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]


def script(main, *arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            exit_cleanly(main)
    return ended.value.code
