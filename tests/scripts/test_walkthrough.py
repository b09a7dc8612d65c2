"""The walkthrough notebook does what it shows."""

import os

import nbformat
from nbclient import NotebookClient

from tests.helpers.paths import ROOT

NOTEBOOK = ROOT / "scripts" / "walkthrough.ipynb"


def outputs(notebook) -> list[list[str]]:
    """The kinds of output of every code cell."""
    return [
        [each.output_type for each in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def test_the_walkthrough_is_executed_and_runs_again(tmp_path):
    committed = nbformat.read(NOTEBOOK, as_version=4)
    counts = [cell.execution_count for cell in committed.cells if cell.cell_type == "code"]
    assert counts == list(range(1, 1 + len(counts)))
    assert not any("error" in kinds for kinds in outputs(committed))
    assert (
        sum("display_data" in kinds or "execute_result" in kinds for kinds in outputs(committed))
        >= 5
    )

    again = nbformat.from_dict({**committed})
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        again, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(
        env=os.environ | {"OMP_NUM_THREADS": "1"}
    )  # a second thread only waits where other work is running
    for cell in again.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                each for each in cell.outputs if each.get("name") != "stderr"
            ]  # warnings differ by version
    assert outputs(again) == outputs(nbformat.read(NOTEBOOK, as_version=4))
