"""The examples in the docstrings of the package are true."""

import doctest
from importlib import import_module

import pytest
import torch

from tests.helpers.paths import ROOT

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "decoders").rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_there_are_examples():
    expected = {
        "decoders.accept",
        "decoders.step_costs",
        "decoders.draft_vocabulary",
        "decoders.dynamic.top_paths",
        "decoders.engine.static_shapes",
        "decoders.spec",
        "decoders.static.rank_tree",
        "decoders.tree",
    }
    assert expected <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name):
    module = import_module(name)
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 0 and result.failed == 0
