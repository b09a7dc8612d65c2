import tests.helpers.kernels  # noqa: F401  Before anything imports Triton.

# isort: split
import json
import os
import signal
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
import torch
import transformers

from bench.inputs.published_sets import CACHE, MIRROR
from decoders import registry
from decoders.engine.engine import Engine
from decoders.engine.graphs import Graphs
from tests.helpers.checkpoints import write_merged
from tests.helpers.commands import QUESTIONS
from tests.helpers.models import tiny_heads, tiny_llama
from tests.helpers.paths import SHARED
from tests.helpers.recorder import recorded

transformers.logging.set_verbosity_error()
# A shell's background ignores Ctrl-C, and what is tested would inherit that.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Tables are as wide as they are in a file, whatever terminal the tests run in.
os.environ.pop("COLUMNS", None)
torch.set_num_threads(1)  # The models are tiny. A second thread would only add waiting.


INSTALLED = {(point.name, point.value) for point in entry_points(group=registry.ENTRY_POINTS)}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path_factory, monkeypatch) -> None:
    """No published set is in the cache, whatever a developer has fetched."""
    monkeypatch.setenv(CACHE, str(tmp_path_factory.getbasetemp() / "no-cache"))
    monkeypatch.delenv(MIRROR, raising=False)


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    """What a test draws without a generator of its own is the same every time."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_installed_plugins(monkeypatch) -> None:
    """Plug-ins that a developer has installed are not there; those that a test brings are."""

    def without_installed(group: str) -> list[EntryPoint]:
        found = entry_points(group=group)
        return [point for point in found if (point.name, point.value) not in INSTALLED]

    monkeypatch.setattr(registry, "entry_points", without_installed)


@pytest.fixture
def mt_bench() -> Path:
    """The real MT-Bench files; users do not have them."""
    if not (SHARED / "mt_bench" / "fastchat" / "question.jsonl").exists():
        pytest.skip("the real MT-Bench questions are not here (../shared/data/mt_bench)")
    return SHARED / "mt_bench" / "fastchat"


@pytest.fixture
def tiny_model() -> Engine:
    """A tiny model with four heads, made fast as a loaded one is."""
    return Engine(tiny_llama(), tiny_heads())


@pytest.fixture
def captured(monkeypatch) -> None:
    """Steps can be captured without CUDA: a recorder stands in for its graphs."""
    monkeypatch.setattr(Graphs, "_capture", lambda self, operations: recorded(operations))


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> str:
    """The folder of a tiny Medusa-2 checkpoint, to be left as it is."""
    return str(write_merged(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture
def questions(tmp_path) -> str:
    """A file of three questions with five turns."""
    file = tmp_path / "three.jsonl"
    file.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return str(file)
