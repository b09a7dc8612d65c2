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
    kinds = outputs(committed)
    assert not any("error" in each for each in kinds)
    assert sum("display_data" in each or "execute_result" in each for each in kinds) >= 5

    again = nbformat.from_dict({**committed})
    code = [cell for cell in again.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        again, timeout=200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    # A second thread would only wait where other work is running.
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    for cell in code:  # Warnings differ by version.
        cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    assert outputs(again) == outputs(nbformat.read(NOTEBOOK, as_version=4))
