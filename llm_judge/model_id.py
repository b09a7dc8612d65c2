"""The name of a model's answers, and of their file.

Two configurations have different names if their answers or their speeds may differ.
"""

from dataclasses import fields
from pathlib import Path

from bench.common.files import digest_of, safe_name
from bench.inputs.checkpoints import short_name
from bench.inputs.identity import identity_of
from bench.inputs.published_models import MODELS
from bench.inputs.spelling import DEMO
from bench.running.config import RunConfig

# Fields of RunConfig that `model_id` names in words of its own.
_NAMED = {
    "decoders",
    "tree",
    "temperature",
    "acceptance",
    "posterior_threshold",
    "posterior_alpha",
    "top_p",
    "max_new_tokens",
}
# Fields that names leave out. The label stands for the model, the bench for the questions.
_UNNAMED = {"model", "questions", "limit", "skip"}


def model_id(label: str, config: RunConfig) -> str:
    """The name of the answers of one decoder.

    label: the model's own part of the name.

    >>> model_id("vicuna-7b", RunConfig(decoders=("dynamic",), temperature=0.0, nodes=32))
    'vicuna-7b-dynamic-temperature-0.0-max_new_tokens-1024-nodes-32'
    """
    parts = [label, config.decoders[0]]
    if config.tree is not None:
        parts.append(_tree_name(config.tree))
    parts.append(f"temperature-{'auto' if config.temperature is None else config.temperature}")
    if config.acceptance != "lossless":
        parts.append(config.acceptance)
        parts.append(f"posterior_threshold-{config.posterior_threshold}")
        parts.append(f"posterior_alpha-{config.posterior_alpha}")
    if config.top_p != 1:
        parts.append(f"nucleus-{config.top_p}")
    parts.append(f"max_new_tokens-{config.max_new_tokens}")
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name not in _NAMED | _UNNAMED and value != field.default:
            parts.append(field.name if value is True else f"{field.name}-{value}")
    return safe_name("-".join(parts))


def label_of(model: str) -> str:
    """The model's own part of the name, where the user gives none.

    That of a folder or a file has a digest: two of them may have the same name, and a model may be
    trained further in its folder.
    """
    name = short_name(model)
    if Path(model).exists() and model not in (DEMO, *MODELS):
        return f"{name}-{identity_of(model)[:8]}"
    return name


def _tree_name(tree: str) -> str:
    """The name of a tree. A file's digest is part of it, as two files may have the same name."""
    path = Path(tree)
    if path.is_file():
        return f"{path.stem}-{digest_of(path)[:8]}"
    return tree
