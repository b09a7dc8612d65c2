"""What the scripts' own types of arguments refuse."""

import argparse

import pytest

from bench.common.errors import UserError
from settings.measuring import product_sizes
from settings.report_files import report_file
from settings.step_numbers import step_numbers


@pytest.mark.parametrize("text", ["48", "48x0", "48x32x16", "ax32", "48x-1", "", "48x32,"])
def test_sizes_are_two_numbers(text):
    with pytest.raises(UserError, match="expected OUTxIN"):
        product_sizes(text)


def test_a_report_goes_into_a_folder_that_is_there(tmp_path):
    assert report_file(str(tmp_path / "a.json")) == tmp_path / "a.json"
    with pytest.raises(UserError, match="there is no folder nowhere"):
        report_file("nowhere/a.json")


@pytest.mark.parametrize("text", ["0", "x", "", "3-", "1-2000", "5-4"])
def test_steps_are_numbers_from_1_on(text):
    with pytest.raises(argparse.ArgumentTypeError, match="expected numbers from 1 on"):
        step_numbers(text)
