"""The examples in the docstrings of the package are true."""

import doctest
from importlib import import_module

import pytest

from tests.helpers.paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "bench").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    assert {"bench.inputs.head_layouts", "bench.metrics.intervals"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name):
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0 and result.failed == 0
