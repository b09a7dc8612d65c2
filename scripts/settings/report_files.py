"""The file with all numbers of a script that measures: its flag --out, and writing it."""

import json
from collections.abc import Mapping
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import write_atomically


def report_file(text: str) -> Path:
    """An argument type: a file to write. UserError where its folder is not there."""
    path = Path(text)
    if not path.parent.is_dir():
        raise UserError(f"--out is {path}, but there is no folder {path.parent}")
    return path


def write_report(report: Mapping[str, object], out: Path | None) -> None:
    """Write a report as JSON, and print the path. None: --out was not given, nothing is written."""
    if out is not None:
        write_atomically(out, json.dumps(report, indent=1) + "\n")
        print(out)
