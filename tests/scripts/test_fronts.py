"""The scripts are fronts: short, and quick to answer --help."""

import doctest
import importlib
import os
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

SCRIPTS = ROOT / "scripts"
FRONTS = sorted(SCRIPTS.glob("*.py"))
MODULES = sorted(SCRIPTS.glob("*/*.py"))
HELP = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = sorted({"torch", "transformers"} & sys.modules.keys())
    print("loaded:", heavy)
"""


@pytest.mark.parametrize("front", FRONTS, ids=lambda path: path.name)
def test_a_front_is_short_and_its_help_needs_no_torch(front):
    assert len(front.read_text().splitlines()) < 60
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(SCRIPTS)])}
    command = [sys.executable, "-c", HELP, str(front)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python scripts/{front.name}")
    assert done.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_the_examples_in_docstrings(module):
    name = ".".join(module.relative_to(SCRIPTS).with_suffix("").parts)
    examples = doctest.testmod(importlib.import_module(name.removesuffix(".__init__")))
    assert examples.failed == 0
    assert (examples.attempted > 0) == (">>> " in module.read_text())
