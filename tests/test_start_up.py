"""Every command's --help is quick: it loads none of the libraries that models need."""

import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

HEAVY = ("torch", "transformers", "accelerate", "pandas", "matplotlib", "scipy")
MODULES = (
    "bench.run",
    "bench.report",
    "bench.fetch",
    "llm_judge.gen_model_answer_baseline",
    "llm_judge.gen_model_answer_medusa",
    "llm_judge.gen_model_answer_medusa_dynamic",
    "llm_judge.gen_judgment",
    "llm_judge.show_result",
)
SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
# Asks every command for help, one after the other in one process, and prints as JSON: by command,
# its exit status, the beginning of what it printed, and the heavy libraries that it was the first
# to load.
ASK_ALL = """
import contextlib, io, json, runpy, sys
modules, scripts, folder, heavy = json.loads(sys.argv[1])
found = {}
for name in [*modules, *scripts]:
    printed, before = io.StringIO(), set(sys.modules)
    sys.argv = [name, "--help"]
    sys.path[0] = folder if name in scripts else ""
    status = "no exit"
    with contextlib.redirect_stdout(printed):
        try:
            if name in scripts:
                runpy.run_path(f"{folder}/{name}", run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code
        except Exception as error:
            status = repr(error)
    loaded = sorted(set(heavy) & (set(sys.modules) - before))
    found[name] = [status, printed.getvalue()[:80], loaded]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, list]:
    asked = json.dumps([MODULES, SCRIPTS, str(ROOT / "scripts"), HEAVY])
    command = [sys.executable, "-c", ASK_ALL, asked]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", [*MODULES, *SCRIPTS])
def test_help_is_given_without_a_heavy_library(command, found):
    status, printed, loaded = found[command]
    usage = f"usage: python scripts/{command}" if command in SCRIPTS else "usage: "
    assert status == 0 and printed.startswith(usage)
    assert not loaded, f"import {', '.join(loaded)} inside main(), after the flags are parsed"


TYPING_ERRORS = (
    ["--decoder", "dinamic"],
    ["--decoder", "greedy,dynamic:node=3"],
    ["--questions", "mt_bnch"],
    ["--template", "vicuna_v1"],
    ["--nodes", "many"],
    ["--temperature", "-1"],
    ["--model", "smolm2"],
    ["--model", "./nowhere"],
    ["--device", "gpu"],
    ["--out", "pyproject.toml"],
)


def test_a_typing_error_is_told_before_a_heavy_library_is_loaded():
    code = (
        "import json, sys; from bench.run import main; from bench.common.errors import UserError\n"
        "for sys.argv in json.loads(sys.argv[1]):\n"
        "    try: main()\n"
        "    except (UserError, SystemExit): pass\n"
        "    else: raise SystemExit(f'{sys.argv} was not refused')\n"
        f"assert not {set(HEAVY)} & set(sys.modules)"
    )
    asked = json.dumps([["bench.run", *given] for given in TYPING_ERRORS])
    subprocess.run([sys.executable, "-c", code, asked], cwd=ROOT, check=True, timeout=120)


def test_the_first_answer_does_not_wait_for_tables_and_figures():
    """What --limit 1 loads before its run begins."""
    code = (
        "import sys\n"
        "from bench import run\n"
        "from bench.running import session\n"
        "def begin(*_): print(*sys.modules); raise SystemExit\n"
        "session.run = begin\n"
        "sys.argv = ['bench.run', '--limit', '1']\n"
        "run.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "torch" in loaded and not {"pandas", "matplotlib"} & loaded


@pytest.mark.parametrize("module", ["llm_judge.gen_judgment", "llm_judge.show_result"])
def test_judging_needs_no_model(module):
    """Neither the commands nor what they import late."""
    late = "llm_judge.judging_run, llm_judge.result_print, bench.reporting.figures"
    code = f"import sys, {module}, {late}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "accelerate"} & set(done.stdout.split())
