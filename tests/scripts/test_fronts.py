"""The scripts are fronts: short. tests/test_start_up.py looks at their --help."""

import doctest
import importlib

import pytest

from tests.helpers.paths import ROOT

SCRIPTS = ROOT / "scripts"
FRONTS = sorted(SCRIPTS.glob("*.py"))
MODULES = sorted(SCRIPTS.glob("*/*.py"))


@pytest.mark.parametrize("front", FRONTS, ids=lambda path: path.name)
def test_a_front_is_short(front):
    assert len(front.read_text().splitlines()) < 60


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_the_examples_in_docstrings(module):
    name = ".".join(module.relative_to(SCRIPTS).with_suffix("").parts)
    examples = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert examples.failed == 0
    assert (examples.attempted > 0) == (">>> " in module.read_text())
