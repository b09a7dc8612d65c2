"""Files that were fitted to a model: found beside it or where an option says, and read safely."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from bench.common.errors import UserError
from bench.common.files import LONGEST
from bench.inputs.fitted import read_fitted, take_files, take_named_files
from bench.inputs.loader import load
from decoders.decoder import Decoder
from decoders.static.decoder import FILE as TREE
from decoders.static.rank_tree import RankTree
from tests.helpers.checkpoints import write_merged
from tests.helpers.steps import made

PATHS = [(0,), (0, 0), (1,)]
CONTENT = '{"paths": [[0], [0, 0], [1]]}'


@pytest.fixture
def loaded(tmp_path):
    return load(str(write_merged(tmp_path / "model")), device="cpu")


def test_a_static_tree_lies_beside_the_model(loaded, tmp_path):
    decoder = made("static")
    take_files(decoder, loaded.where, loaded.model)
    assert decoder.files == {}
    (tmp_path / "model" / TREE).write_text(CONTENT)
    take_files(decoder, loaded.where, loaded.model)
    assert decoder.files[TREE].paths == PATHS


def test_a_file_that_an_option_names_is_read_without_a_model(loaded, tmp_path):
    """The file beside the model does not matter then."""
    (tmp_path / "own.json").write_text(CONTENT)
    (tmp_path / "model" / TREE).write_text('{"paths": [[0]]}')
    decoder = made(f"static:tree={tmp_path / 'own.json'}")
    take_named_files(decoder)
    assert decoder.files[TREE].paths == PATHS
    take_files(decoder, loaded.where, loaded.model)
    assert decoder.files[TREE].paths == PATHS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", " is not JSON: Expecting property name"),
        ("[" * 100_000, " is not JSON: it is nested too deeply"),
        ("{}", ": not a tree"),
        ('{"paths": [[1, 0]]}', r": not a tree: \[1, 0\] has no parent"),
    ],
)
def test_a_file_that_is_not_what_it_must_be_is_named(loaded, tmp_path, content, says):
    (tmp_path / "model" / TREE).write_text(content)
    with pytest.raises(ValueError, match=f"model/{TREE}{says}"):
        take_files(made("static"), loaded.where, loaded.model)


@pytest.mark.parametrize("content", ["{", "nonsense", "[" * 5000, '{"floor": NaN}', b"\xff"])
@pytest.mark.parametrize("spec", ["static", "dynamic", "conditional"])
def test_what_is_no_json_is_named_whoever_reads_it(loaded, tmp_path, spec, content):
    for name in made(spec).fitted:
        file = tmp_path / "model" / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(ValueError, match=f"model/{name} is not JSON"):
            take_files(made(spec), loaded.where, loaded.model)
        file.unlink()


def test_the_largest_file(tmp_path):
    file = tmp_path / "tree.json"
    assert LONGEST == 16 * 1024**2
    file.write_text("[[0]]".ljust(LONGEST))
    assert read_fitted(file, RankTree.parse).paths == [(0,)]
    file.write_text("[[0]]".ljust(LONGEST + 1))
    with pytest.raises(UserError, match=r"tree\.json is longer than 16 MiB"):
        read_fitted(file, RankTree.parse)


@dataclass
class Taking(Decoder):
    """Remembers the names of what it was given."""

    fitted: ClassVar[dict] = {"own.json": dict}
    weights: ClassVar[dict] = {"own.safetensors": lambda tensors, model: tensors}

    table: str | None = None

    def path_of(self, file):
        return self.table if file == "own.json" else None

    def take(self, files):
        self.taken = list(files)


def test_a_decoder_takes_its_files_once_unless_it_names_a_fitted_one(tmp_path):
    """One that looks for its weights failed at the first of two calls, which had none."""
    decoder = Taking()
    take_named_files(decoder)
    assert not hasattr(decoder, "taken")
    (tmp_path / "named.json").write_text("{}")
    decoder = Taking(str(tmp_path / "named.json"))
    take_named_files(decoder)
    assert decoder.taken == ["own.json"]
