"""The house stands as docs/house.md says: who may import whom, and what decoders do without.

Each message names the file and the line, and says what to do.
"""

import ast
import subprocess
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest

from tests.helpers.imports import SCRIPTS, Import, Module, imports_of, modules, with_packages
from tests.helpers.paths import ROOT

# By room: the rooms and modules that it may import beside itself.
ALLOWED = {
    "decoders": (),
    "bench.common": (),
    "bench.store": ("bench.common", "decoders.spec"),
    "bench.metrics": ("bench.store", "bench.common", "decoders.spec"),
    "bench.inputs": ("bench.store", "bench.common", "decoders"),
    "bench.reporting": (
        "bench.metrics",
        "bench.store",
        "bench.common",
        "bench.inputs.questions",
        "bench.inputs.published_sets",
        "decoders.spec",
        # Which decoders have a shared option, such as --nodes.
        "decoders.options",
        "decoders.registry",
    ),
    "bench.running": ("bench.inputs", "bench.store", "bench.common", "decoders"),
}
COMMANDS = "bench"  # bench/run.py, report.py and fetch.py, which no other room imports.
ALLOWED[COMMANDS] = ("decoders", *(room for room in ALLOWED if room.startswith("bench.")))
ALLOWED["llm_judge"] = ALLOWED[COMMANDS]
# Rooms that need no model, and commands that need none.
WITHOUT_TORCH = ("bench.common", "bench.store", "bench.metrics", "bench.reporting")
COMMANDS_WITHOUT_TORCH = (
    "bench.run",
    "bench.report",
    "bench.fetch",
    "llm_judge.gen_judgment",
    "llm_judge.show_result",
    "llm_judge.gen_model_answer_baseline",
    "llm_judge.gen_model_answer_medusa",
    "llm_judge.gen_model_answer_medusa_dynamic",
)
HEAVY = ("torch", "transformers", "accelerate")
# Libraries that may be missing, or that a command can mostly do without.
OPTIONAL = (
    *("ray", "gguf", "openai", "tenacity", "bitsandbytes", "requests", "urllib3", "atheris"),
    "triton",
)
# What three commands do; their own files only name the decoder.
SHARED_MAIN = "llm_judge.gen_model_answer"
LONGEST_LINE = 100
LONG_LINES: set[str] = set()  # Files that cannot be otherwise. There are none.

KNOWN = modules()
IMPORTS = {name: imports_of(module, KNOWN) for name, module in KNOWN.items()}
PACKAGE_IMPORTS = [
    each for name, found in IMPORTS.items() if not KNOWN[name].is_script for each in found
]


def room_of(name: str) -> str:
    """The room that a module lies in.

    >>> [room_of(name) for name in ("bench.store.turn", "bench.run", "decoders.model.cache")]
    ['bench.store', 'bench', 'decoders']
    """
    rooms = [room for room in ALLOWED if lies_in(name, room)]
    return max(rooms, key=len)


def lies_in(name: str, where: str) -> bool:
    return name == where or name.startswith(f"{where}.")


def fail(broken: Iterable[object], advice: str) -> None:
    """Fail with one line for each thing that is broken, and what to do."""
    lines = [str(each) for each in broken]
    if lines:
        pytest.fail("\n".join([*lines, advice]), pytrace=False)


def test_no_circle():
    ours = {
        name: {each.target for each in found if each.target in KNOWN and each.target != name}
        for name, found in IMPORTS.items()
    }
    circle: list[str] = []
    try:
        TopologicalSorter(ours).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # Each imports the next.
    links = [
        next(each for each in IMPORTS[one] if each.target == other)
        for one, other in pairwise(circle)
    ]
    fail(links, "This is a circle: move what both need into a module that imports neither.")


def test_imports_run_down_only():
    broken = []
    for each in PACKAGE_IMPORTS:
        if each.target not in KNOWN or KNOWN[each.target].is_script:
            continue
        room, other = room_of(each.importer.name), room_of(each.target)
        if room != other and not any(lies_in(each.target, allowed) for allowed in ALLOWED[room]):
            allowed = ", ".join(ALLOWED[room]) or "nothing else of ours"
            broken.append(f"{each}, but {room} may import {allowed}")
    fail(broken, "Move the code to a room above, or what it needs to a room below.")


def test_nothing_imports_the_scripts():
    scripts = {name.split(".")[0] for name, module in KNOWN.items() if module.is_script}
    broken = [each for each in PACKAGE_IMPORTS if each.target.split(".")[0] in {*scripts, SCRIPTS}]
    fail(broken, "Move what is shared into decoders, bench or llm_judge.")


def chain_to_heavy(start: str) -> list[Import]:
    """The imports by which loading a module loads a heavy library. Empty: it does not."""
    chains: dict[str, list[Import]] = {name: [] for name in with_packages(start)}
    waiting = list(chains)
    while waiting:
        name = waiting.pop(0)
        for each in IMPORTS.get(name, ()):
            if not each.is_loaded:
                continue
            if each.target.split(".")[0] in HEAVY:
                return [*chains[name], each]
            for loaded in with_packages(each.target):
                if loaded in KNOWN and loaded not in chains:
                    chains[loaded] = [*chains[name], each]
                    waiting.append(loaded)
    return []


def test_what_needs_no_model_never_loads_torch():
    assert set(COMMANDS_WITHOUT_TORCH) <= KNOWN.keys()
    light = [name for name in KNOWN if any(lies_in(name, room) for room in WITHOUT_TORCH)]
    broken = []
    for name in [*light, *COMMANDS_WITHOUT_TORCH]:
        if chain := chain_to_heavy(name):
            broken.append(f"{KNOWN[name].file} loads a heavy library: {'; '.join(map(str, chain))}")
    advice = "Import it late in main() of the command, or move what is needed to a lighter module."
    fail(broken, advice)


FILE_CALLS = {"open", "safe_open", "load_file"}
FILE_METHODS = {
    "open",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "stat",
    "is_file",
    "is_dir",
    "exists",
    "iterdir",
    "perf_counter",
    "getenv",
    "environ",
}
OUTSIDE = {"os", "time", "datetime", "io", "shutil", "tempfile", "glob"}  # Modules of Python.


def outside_world(module: Module) -> Iterable[str]:
    """Where a module opens a file, reads a clock or an environment variable."""
    for node in ast.walk(module.tree()):
        found = None
        if isinstance(node, ast.Import):
            found = next((each.name for each in node.names if each.name in OUTSIDE), None)
        elif isinstance(node, ast.ImportFrom) and node.module in OUTSIDE:
            found = node.module
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found = node.func.id if node.func.id in FILE_CALLS else None
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            found = text if node.attr in FILE_METHODS or text in ("torch.load",) else None
        if found:
            yield f"{module.file}:{node.lineno} uses {found}"


def test_decoders_know_no_file_clock_or_environment():
    ours = [module for name, module in KNOWN.items() if lies_in(name, "decoders")]
    broken = [each for module in ours for each in outside_world(module)]
    fail(broken, "Do it in bench, and hand the result to the decoder (Decoder.fitted, .weights).")


def is_command(module: Module) -> bool:
    """Whether a file is run as a command, or does what a command does."""
    texts = [ast.unparse(node.test) for node in module.tree().body if isinstance(node, ast.If)]
    return "__name__ == '__main__'" in texts or module.name == SHARED_MAIN


def needs_an_extra(target: str) -> bool:
    """Whether a module is an optional library, or one of ours that cannot do without one."""
    if target.split(".")[0] in OPTIONAL:
        return True
    loaded = [each for each in IMPORTS.get(target, ()) if each.is_loaded]
    return any(each.target.split(".")[0] in OPTIONAL for each in loaded) or any(
        needs_an_extra(each.target) for each in loaded if each.target in KNOWN
    )


def test_late_imports_are_of_commands_and_of_extras():
    broken = [
        each
        for found in IMPORTS.values()
        for each in found
        if each.function is not None
        and not needs_an_extra(each.target)
        and not (is_command(each.importer) and each.function != "parser")
    ]
    advice = "Import at the top. Late is for commands, once flags are parsed, and for extras."
    fail(broken, advice)


def tracked(pattern: str) -> list[str]:
    """The files of the checkout that git does not ignore, by path from the root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("this is no checkout of git")
    return [file for file in done.stdout.splitlines() if (ROOT / file).is_file()]


def test_no_line_is_too_long():
    broken = [
        f"{file}:{number} has {len(line)} characters"
        for file in tracked("*.py")
        if file not in LONG_LINES
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").split("\n"), 1)
        if len(line) > LONGEST_LINE
    ]
    fail(broken, f"Break the line: {LONGEST_LINE} characters at most.")


def test_no_test_imports_another_test_file():
    broken = []
    for file in tracked("tests/*.py"):
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            names = [each.name for each in getattr(node, "names", []) if hasattr(each, "name")]
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{name}" for name in names]
            if isinstance(node, (ast.Import, ast.ImportFrom)) and any(
                part.startswith("test_") for name in names for part in name.split(".")[:-1]
            ):
                broken.append(f"{file}:{node.lineno} imports {', '.join(names)}")
    fail(broken, "Move what both need into tests/helpers.")
