"""The JSON file of step times by phase, which scripts/bench_step.py writes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import read_document, shown
from bench.common.strict_json import parse_json

SCHEMA_VERSION = 2  # Version 1 counted "learn" as a part of "accept".
PHASES = ("draft", "propose", "verify", "accept", "learn", "commit")  # Of a step, in order.
_EXPECTED = "expected the JSON file that scripts/bench_step.py writes"


@dataclass(frozen=True, eq=False)
class StepTable:
    """Times of steps by phase."""

    path: Path
    # Each has decoder, length, operations, synchronisations, and <phase>_s for each of PHASES.
    rows: list[dict]
    # What was measured: "model", "device", "dtype". A name is missing where it is not recorded.
    conditions: dict[str, str]


def read_phases(path: Path) -> StepTable:
    """Read the file. UserError where it holds something else."""
    try:
        record = parse_json(read_document(path))
    except UserError as error:
        raise UserError(f"{error}; {_EXPECTED}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); {_EXPECTED}") from error
    version = record.get("schema_version") if isinstance(record, dict) else None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{path} has schema version {version}; this version reads {SCHEMA_VERSION}; {_EXPECTED}"
        )
    kinds: dict[str, type | tuple[type, ...]] = {f"{phase}_s": (int, float) for phase in PHASES}
    kinds |= {"decoder": str, "length": int, "operations": int, "synchronisations": int}
    rows = record.get("rows")
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{path} has no rows; {_EXPECTED}")
    for number, row in enumerate(rows, start=1):
        for name, kind in kinds.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise UserError(f"{path}, row {number} has no {name}; {_EXPECTED}")
    counts = Counter((row["decoder"], row["length"]) for row in rows)
    (decoder, length), most = counts.most_common(1)[0]
    if most > 1:
        raise UserError(
            f"{path} has {most} rows of {shown(decoder)} at {length} tokens of context; {_EXPECTED}"
        )
    environment = record.get("environment")
    recorded = {"model": record.get("model")}
    if isinstance(environment, dict):
        recorded |= {name: environment.get(name) for name in ("device", "dtype")}
    known = {name: value for name, value in recorded.items() if isinstance(value, str)}
    return StepTable(path, rows, known)
