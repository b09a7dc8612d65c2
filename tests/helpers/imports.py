"""The imports of this project's modules, read from their source."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.helpers.paths import ROOT

PACKAGES = ("decoders", "bench", "llm_judge")
SCRIPTS = "scripts"  # Its modules are named as its own files name them, such as "training.corpus".


@dataclass(frozen=True)
class Module:
    """One file of Python."""

    name: str  # Dotted. A package's is that of its folder.
    file: Path  # Relative to the project's root.

    @property
    def is_package(self) -> bool:
        return self.file.name == "__init__.py"

    @property
    def is_script(self) -> bool:
        return self.file.parts[0] == SCRIPTS

    def tree(self) -> ast.Module:
        return _parsed(self.file)


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Import:
    """One import statement, or one of its names."""

    importer: Module
    target: str  # Dotted: a module of ours where it is one, else as it is written.
    line: int
    function: str | None  # The outermost function that it stands in. None: at module level.
    type_checking: bool  # Whether only a type checker reads it.

    def __str__(self) -> str:
        return f"{self.importer.file}:{self.line} imports {self.target}"

    @property
    def is_loaded(self) -> bool:
        """Whether it happens as soon as the module is loaded."""
        return self.function is None and not self.type_checking


def modules() -> dict[str, Module]:
    """All modules of the packages and of the scripts, by name."""
    found = {}
    for folder in (*PACKAGES, SCRIPTS):
        for path in sorted((ROOT / folder).rglob("*.py")):
            file = path.relative_to(ROOT)
            parts = list(file.with_suffix("").parts)
            if folder == SCRIPTS:
                parts = parts[1:]
            if parts[-1] == "__init__":
                parts = parts[:-1]
            name = ".".join(parts)
            found[name] = Module(name, file)
    return found


def imports_of(module: Module, known: dict[str, Module]) -> list[Import]:
    """All imports of a module, wherever they stand."""
    found: list[Import] = []

    def visit(node: ast.AST, function: str | None, type_checking: bool) -> None:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            function = function or node.name
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            for target in _targets(node, module, known):
                found.append(Import(module, target, node.lineno, function, type_checking))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, function, True)
            for child in node.orelse:
                visit(child, function, type_checking)
            return
        for child in ast.iter_child_nodes(node):
            visit(child, function, type_checking)

    visit(module.tree(), None, False)
    return found


def _targets(
    node: ast.Import | ast.ImportFrom, module: Module, known: dict[str, Module]
) -> list[str]:
    """The modules that a statement imports.

    `from a import b` is the module a.b where there is one, else a.
    """
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:
        above = module.name.split(".")
        if not module.is_package:
            above = above[:-1]
        above = above[: len(above) - node.level + 1]
        base = ".".join([*above, *([base] if base else [])])
    joined = [f"{base}.{alias.name}" for alias in node.names]
    return list(dict.fromkeys(each if each in known else base for each in joined))


def with_packages(name: str) -> list[str]:
    """A module and the packages around it, which are loaded before it.

    >>> with_packages("bench.store.turn")
    ['bench', 'bench.store', 'bench.store.turn']
    """
    parts = name.split(".")
    return [".".join(parts[: count + 1]) for count in range(len(parts))]
