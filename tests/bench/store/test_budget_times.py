"""The step times of a run.json, read with care."""

import copy
import json

import pytest

from bench.common.errors import UserError
from bench.store.budget_times import read_budget_times
from tests.helpers.runs import run_json

SPEC = "dynamic:nodes=auto"
TIMES = {
    "step_times": {"lengths": [64, 512], "sizes": [1, 4], "seconds": [[0.1, 0.2], [0.2, 0.3]]},
    "draft_times": {SPEC: {"2": 0.01, "3": 0.02}},
}


def written(folder, times, name="run.json"):
    path = folder / name
    path.write_text(json.dumps(run_json(**times)))
    return path


def test_the_times_of_a_run_by_its_folder_or_its_file(tmp_path):
    written(tmp_path, TIMES)
    copied = written(tmp_path, TIMES, "copied.json")
    for path in (tmp_path, tmp_path / "run.json", copied):
        times = read_budget_times(path)
        assert times.step_times.sizes == [1, 4] and times.step_times.seconds[1] == [0.2, 0.3]
        assert times.draft_s == {SPEC: {2: 0.01, 3: 0.02}}


def change(*path):
    """The times above, but for one value: the last of `path`, at the place that the rest names."""
    *place, last, value = path
    times = copy.deepcopy(TIMES)
    inner = times
    for part in place:
        inner = inner[part]
    inner[last] = value
    return times


@pytest.mark.parametrize(
    ("times", "says"),
    [
        ({}, "has no step times of its own"),
        (change("step_times", None), "has no step times of its own"),
        (change("step_times", "sizes", [2, 4]), "its sizes begin with 2, expected 1"),
        (change("step_times", "sizes", [1, 1]), "its sizes do not ascend"),
        (change("step_times", "lengths", [512, 64]), "its lengths do not ascend"),
        (change("step_times", "lengths", []), "lengths is"),
        (change("step_times", "sizes", [1, 5000]), "sizes[1] is 5000"),
        (change("step_times", "seconds", [[0.1, 0.2]]), "are not a row of all sizes for each"),
        (change("step_times", "seconds", 1, [0.1]), "are not a row of all sizes for each"),
        (change("step_times", "seconds", 0, 0, 0.0), "seconds[0][0] is 0.0"),
        (change("step_times", "seconds", 0, 0, "0.1"), "seconds[0][0] is '0.1'"),
        (change("step_times", "seconds", 0, 0, -1), "seconds[0][0] is -1"),
        (change("step_times", {"lengths": [1]}), "it has no 'step_times.sizes'"),
        (change("draft_times", SPEC, "2", -0.1), "is -0.1"),
        (change("draft_times", SPEC, "two", 0.1), "'two'"),
        (change("draft_times", SPEC, [0.1]), "expected"),
    ],
)
def test_times_that_are_none_are_told_in_one_line(times, says, tmp_path):
    written(tmp_path, times)
    with pytest.raises(UserError) as error:
        read_budget_times(tmp_path)
    text = str(error.value)
    assert says in text and "expected the folder or the run.json of a run with nodes=auto" in text
    assert "\n" not in text


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema_version": 9}'])
def test_a_file_that_is_no_run_is_told(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="expected the folder or the"):
        read_budget_times(tmp_path)
    with pytest.raises(UserError, match=r"nowhere cannot be read: .*; expected the folder"):
        read_budget_times(tmp_path / "nowhere")
