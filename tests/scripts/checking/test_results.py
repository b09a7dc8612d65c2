"""The published numbers are those of the published rows."""

import gzip
import shutil
from pathlib import Path

import pytest

from bench.common.errors import UserError
from checking.results import PUBLISHED, differences, expected_texts
from tests.helpers.paths import ROOT
from tests.helpers.runs import TWO_DECODERS, write_run

PAGE = """Text.

<!-- numbers: results/reference/made -->

| decoder | TPI ratio | equal |
| --- | ---: | ---: |
| dynamic | {ratio} | 1/2 |

| decoder | TPI ratio |
| --- | ---: |
| dynamic | of no run |
"""


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A checkout with one published run, and a README that shows two of its numbers."""
    folder = write_run(tmp_path / PUBLISHED / "made", TWO_DECODERS)
    rows = folder / "turns.jsonl"
    with gzip.open(folder / "turns.jsonl.gz", "wb") as packed:
        packed.write(rows.read_bytes())
    rows.unlink()
    (tmp_path / "README.md").write_text(PAGE.format(ratio="1.60x"))
    return tmp_path


def test_the_numbers_of_this_checkout_are_those_of_its_rows():
    assert differences(ROOT, expected_texts(ROOT)) == []


def test_every_published_run_has_its_rows():
    folders = [path for path in (ROOT / PUBLISHED).iterdir() if (path / "run.json").exists()]
    assert folders
    assert all((folder / "turns.jsonl.gz").exists() for folder in folders)


def test_a_number_that_is_not_in_the_rows_is_found_and_written_right(checkout):
    expected = expected_texts(checkout)
    tables = checkout / PUBLISHED / "made" / "tables.md"
    assert set(expected) == {tables, checkout / "README.md"}
    tables.write_text(expected[tables])
    assert differences(checkout, expected) == []
    (checkout / "README.md").write_text(PAGE.format(ratio="1.70x"))
    found = differences(checkout, expected_texts(checkout))
    assert "-| dynamic | 1.70x | 1/2 |" in found
    assert "+| dynamic | 1.60x | 1/2 |" in found
    assert expected_texts(checkout)[checkout / "README.md"] == PAGE.format(ratio="1.60x")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("reference/made", "reference/other", "expected one of results/reference/made"),
        ("TPI ratio", "TPI", "'TPI' of results/reference/made; expected one of"),
        ("| dynamic", "| dynamo", "'dynamo' of results/reference/made; expected one of greedy"),
    ],
)
def test_a_table_of_what_is_not_published_is_refused(checkout, old, new, message):
    page = checkout / "README.md"
    page.write_text(page.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        expected_texts(checkout)


@pytest.mark.parametrize("between", ["\n", "\n\n\n", " \n\n"])
def test_a_marked_table_that_is_not_found_is_refused(checkout, between):
    """It was not checked, and the page was said to agree."""
    page = checkout / "README.md"
    page.write_text(page.read_text().replace("made -->\n\n", f"made -->{between}"))
    with pytest.raises(UserError, match=r"1 marks of numbers .* and 0 tables"):
        expected_texts(checkout)


def test_rows_that_are_cut_off_are_no_results(checkout):
    rows = checkout / PUBLISHED / "made" / "turns.jsonl.gz"
    rows.write_bytes(rows.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"turns\.jsonl\.gz cannot be read"):
        expected_texts(checkout)


def test_the_rows_are_read_and_left_as_they_are(checkout, tmp_path_factory):
    copy = tmp_path_factory.mktemp("before") / "made"
    shutil.copytree(checkout / PUBLISHED / "made", copy)
    expected_texts(checkout)
    for file in copy.iterdir():
        assert (checkout / PUBLISHED / "made" / file.name).read_bytes() == file.read_bytes()
