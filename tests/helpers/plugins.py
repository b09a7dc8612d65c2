"""Packages that bring decoders, installed beside this one."""

from pathlib import Path


def install(folder: Path, module: str, source: str, entry_points: dict[str, str]) -> Path:
    """Write a distribution of one module into a folder of `sys.path`. Returns the module's file.

    entry_points: the class or object in the module, by name of a decoder.
    """
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    file = folder / f"{module}.py"
    file.write_text(source)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    write_entry_points(folder, module, entry_points)
    return file


def write_entry_points(folder: Path, module: str, entry_points: dict[str, str]) -> None:
    lines = [f"{name} = {module}:{target}\n" for name, target in entry_points.items()]
    path = folder / f"{module}-1.0.dist-info" / "entry_points.txt"
    path.write_text("[medusa_bench.decoders]\n" + "".join(lines))
