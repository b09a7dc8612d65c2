"""The decoders of a run: made from their specs, checked, and bound to a model."""

import json
import traceback
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import safe_name
from bench.inputs.drafting_models import check_drafting_models, load_drafting_models
from bench.inputs.fitted import take_files, take_named_files
from bench.inputs.loader import Loaded, model_identity
from bench.running.config import RunConfig
from bench.running.step_times import AutoTimes, draft_times
from decoders import registry
from decoders.budget import AutoBudget, Budgeted
from decoders.decoder import Decoder
from decoders.spec import AUTO, Spec
from decoders.step import NotANumber

PROJECT = "decoders"  # The package whose decoders a commit of this project identifies.


def make_decoder(text: str, defaults: Mapping[str, object] | None = None) -> Decoder:
    """The decoder of a spec, with the files that its options name, not yet bound to a model.

    defaults: see `registry.make`. ValueError says what does not fit.
    """
    spec = Spec.parse(text)
    decoder = registry.make(spec, defaults)
    check_drafting_models(decoder)
    try:
        take_named_files(decoder)
    except ValueError as error:
        raise ValueError(f"decoder {text!r}: {error}") from error
    return decoder


def make_decoders(config: RunConfig) -> dict[str, Decoder]:
    """The decoders of a run by spec, not yet bound to a model.

    UserError for a name, an option or a flag that does not fit.
    """
    specs = config.decoders
    listed = ", ".join(specs)
    if len(set(specs)) < len(specs) or not specs:
        raise UserError(f"decoders must be one or more different names, got {listed!r}")
    try:
        decoders = {text: make_decoder(text, config.shared_options) for text in specs}
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if config.acceptance != "lossless" and not any(each.drafts for each in decoders.values()):
        raise UserError(
            f"--acceptance {config.acceptance} has no effect on {listed}: nothing is drafted; "
            "leave it out"
        )
    if len({safe_name(text) for text in specs}) < len(specs):
        raise UserError(f"{listed} would share an answer file; rename a tree's file")
    for option in config.shared_options:
        if not any(option in _open_options(text) for text in specs):
            raise UserError(f"--{option} has no effect on {listed}; leave it out")
    if config.step_times is not None and not any(each.auto for each in decoders.values()):
        raise UserError(
            f"--step-times has no effect on {listed}: none has nodes={AUTO}; leave it out"
        )
    return decoders


def _open_options(text: str) -> set[str]:
    """The options of the spec's decoder that the spec does not set."""
    spec = Spec.parse(text)
    return registry.options(spec.name) - spec.options.keys()


def remarks(config: RunConfig, decoders: Mapping[str, Decoder]) -> list[str]:
    """One line for every shared flag that some of the drafting decoders do not have."""
    lines = []
    drafting = [text for text, decoder in decoders.items() if decoder.drafts]
    for option, value in config.shared_options.items():
        without = [
            text for text in drafting if option not in registry.options(Spec.parse(text).name)
        ]
        if without:
            lines.append(
                f"--{option} {value} is not about {', '.join(without)}, which has no such option"
            )
    return lines


def tree_digests(decoders: Mapping[str, Decoder]) -> dict[str, str]:
    """By spec, the sha256 of the decoder's `identity`, as a file may change under its name."""
    return {
        text: sha256(json.dumps(decoder.identity).encode()).hexdigest()
        for text, decoder in decoders.items()
        if decoder.identity is not None
    }


def plugin_digests(decoders: Mapping[str, Decoder]) -> dict[str, str]:
    """By spec, the sha256 of the source file of each decoder of another package.

    This project's commit does not identify such a file.
    """
    digests = {}
    for text, decoder in decoders.items():
        source = registry.source_of(decoder)
        if source is not None and type(decoder).__module__.partition(".")[0] != PROJECT:
            digests[text] = sha256(source.read_bytes()).hexdigest()
    return digests


def file_digests(decoders: Mapping[str, Decoder]) -> dict[str, dict[str, str]]:
    """By spec and name, the sha256 of the files that the options name, or a model's identity.

    Files whose contents `identity` holds are left out.
    """
    digests = {}
    for text, decoder in decoders.items():
        names = () if decoder.identity is not None else (*decoder.fitted, *decoder.weights)
        paths = {name: decoder.path_of(name) for name in names}
        found = {name: Path(path) for name, path in paths.items() if path and Path(path).is_file()}
        named = {name: sha256(path.read_bytes()).hexdigest() for name, path in found.items()}
        named |= {name: model_identity(decoder.path_of(name)) for name in decoder.models}
        if named:
            digests[text] = named
    return digests


def bind(
    text: str,
    decoder: Decoder,
    loaded: Loaded,
    times: AutoTimes | None = None,
) -> Decoder | Budgeted:
    """Give a decoder its files, wrap it in a budget if it needs one, and set it up on a model.

    text: its spec. times: for a budget; those of drafting are measured now if they are missing.
    None: the decoder needs no budget. UserError where it does not fit the model.
    """
    bound = Budgeted(decoder, AutoBudget(times.steps)) if decoder.auto else decoder
    try:
        models = load_drafting_models(decoder, loaded)
        take_files(decoder, loaded.where, loaded.model, models)
        bound.setup(loaded.model)
    except ValueError as error:
        raise UserError(f"decoder {text!r} does not fit {loaded.name!r}: {error}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"decoder {text!r} cannot be set up: {described(error, decoder)}"
        ) from error
    if isinstance(bound, Budgeted):
        draft_s = times.draft_s.get(text) or draft_times(bound)
        if (given := sorted(draft_s)) != (depths := list(decoder.draft_depths)):
            raise UserError(
                f"decoder {text!r} drafts to the depths {depths}, but the step times are of a run "
                f"with {given}; give those of a run with the same model and flags"
            )
        bound.budget.draft_s = draft_s
    return bound


def plain(decoder: Decoder | Budgeted) -> Decoder:
    """The decoder without its budget."""
    return decoder.inner if isinstance(decoder, Budgeted) else decoder


def described(error: BaseException, decoder: Decoder) -> str:
    """An error on one line, with the line of the decoder's own file that it passed through."""
    source = registry.source_of(decoder)
    line = _line_in(error, str(source)) if source else None
    where = ""
    if line is not None and not isinstance(error, (UserError, NotANumber)):
        where = f" ({source.name}, line {line})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}{where}"


def _line_in(error: BaseException, file: str) -> int | None:
    """The innermost line of a file in an error's traceback. None: the file is not in it."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
