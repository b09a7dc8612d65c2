"""Where the parts of a model lie: its language model, its heads, the files fitted to them.

Nothing is loaded here, except that a published model is fetched.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from bench.common.errors import UserError
from bench.inputs.checkpoint_checks import (
    check_base,
    check_weights_exist,
    refuse_adapter,
    refuse_pointers,
)
from bench.inputs.checkpoints import BASE, base_of, file_of_heads, read_config
from bench.inputs.fetched_models import fetched_model
from bench.inputs.gguf_files import GGUF, find_gguf
from bench.inputs.head_layouts import shares_projection
from bench.inputs.identity import contents_of, identity_of
from bench.inputs.load_errors import readable_errors
from bench.inputs.published_models import MODELS, heads_folder, published_name
from bench.inputs.spelling import DEMO, check_model_spelling
from bench.inputs.tensor_files import PICKLES
from decoders import registry


@dataclass(frozen=True)
class Locations:
    """Where the parts of a model lie: folders or hub ids."""

    where: str  # Place of the heads, and of the files that are fitted to them.
    base: str  # Place of the language model.
    has_separate_heads: bool
    # Whether heads end in the language model's own projection. None: where they have none.
    shares_projection: bool | None = False
    gguf: GGUF | None = None  # The language model's file. None: an ordinary checkpoint.
    # Identity of a published model, whose checkpoint was made here. None: digest the files.
    base_identity: str | None = None

    def identity(self, of_part: Callable[[str], str] = identity_of) -> str:
        """The identity of all files of the model.

        of_part: that of a folder or a file of it, `identity_of` or `contents_of`.
        """
        if self.gguf is not None:
            beside = [self.where] if self.has_separate_heads else _companions(self.where)
            return " ".join(of_part(part) for part in [*beside, str(self.gguf.path)])
        if self.base_identity is not None:
            return f"{of_part(self.where)} {self.base_identity}"
        return " ".join(of_part(part) for part in dict.fromkeys((self.where, self.base)))


def locate(name: str) -> Locations:
    """Where the parts of a model lie. UserError where there is no model of this name."""
    if (published := published_name(name)) is not None:
        heads = str(heads_folder(published))
        if name != published:  # The hub id.
            return Locations(heads, name, has_separate_heads=True, shares_projection=True)
        base, digest = str(fetched_model(name)), MODELS[name].file_sha256
        return Locations(
            heads, base, has_separate_heads=True, shares_projection=True, base_identity=digest
        )
    if (gguf := find_gguf(name)) is not None:
        return Locations(gguf.folder, gguf.folder, has_separate_heads=False, gguf=gguf)
    where = str(files(__package__) / "demo") if name == DEMO else name
    refuse_adapter(where)
    refuse_pointers(where)
    config = read_config(where)
    if BASE in config:
        base = base_of(where, config)
        if (gguf := find_gguf(base)) is not None:
            return Locations(where, gguf.folder, True, shares_projection(config), gguf)
        check_base(where, base)
        refuse_adapter(base)
        refuse_pointers(base)
        return Locations(where, base, True, shares_projection(config))
    check_weights_exist(where, config)
    has_separate_heads = file_of_heads(where) is not None
    return Locations(where, where, has_separate_heads, shares_projection(config))


def _companions(folder: str) -> list[str]:
    """The paths of the files beside a GGUF file that decoders of this project read.

    Other files in its folder, such as other models, are not the model's.
    """
    stems = {Path(name).stem for name in registry.files_beside()}
    endings = (".json", ".safetensors", *PICKLES)
    beside = sorted(Path(folder).iterdir())
    return [str(each) for each in beside if each.stem in stems and each.suffix in endings]


def model_contents(name: str) -> str:
    """Digests of all files of a model, whole. UserError where there is no such model."""
    with readable_errors(repr(name)):
        return locate(name).identity(contents_of)


def check_model_name(name: str) -> None:
    """UserError where a name cannot be a model. Nothing is loaded."""
    if name == DEMO or published_name(name) is not None or find_gguf(name) is not None:
        return
    folder = Path(name)
    if folder.is_file():
        raise UserError(
            f"model {name!r} is a file; expected {DEMO!r}, 'smollm2', a .gguf file, a folder or a "
            "hub id"
        )
    if folder.is_dir():
        with readable_errors(repr(name)):
            refuse_adapter(name)
            refuse_pointers(name)
            config = read_config(name)
            if BASE not in config:
                check_weights_exist(name, config)
        return
    check_model_spelling(name)
