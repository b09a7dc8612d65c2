"""The file of step times by phase, read with care."""

import json

import pytest

from bench.common.errors import UserError
from bench.store.step_profile import PHASES, SCHEMA_VERSION, read_phases

ROW = {f"{phase}_s": 0.001 for phase in PHASES} | {"operations": 3, "synchronisations": 1}


def write(path, *places: tuple[str, int]) -> None:
    rows = [ROW | {"decoder": decoder, "length": length} for decoder, length in places]
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "rows": rows}))


@pytest.mark.parametrize("decoder", ["greedy", "dynamic"])
def test_a_decoder_that_stands_twice_at_one_length_is_refused(decoder, tmp_path):
    """Steps of greedy that stood twice ended in a traceback of pandas."""
    file = tmp_path / "step.json"
    sound = [("greedy", 128), ("dynamic", 128), ("greedy", 512), ("dynamic", 512)]
    write(file, *sound)
    assert len(read_phases(file).rows) == 4
    write(file, *sound, (decoder, 512))
    says = f"has 2 rows of '{decoder}' at 512 tokens of context; expected the JSON file that"
    with pytest.raises(UserError, match=says):
        read_phases(file)


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "step.json"
    path.write_text(json.dumps({"schema_version": SCHEMA_VERSION, "rows": []}))
    with pytest.raises(UserError, match="has no rows; expected the JSON file that scripts/bench_"):
        read_phases(path)
