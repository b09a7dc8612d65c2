"""The decoders of a run: made from their specs, checked, and bound to a model."""

import sys
import traceback
from collections.abc import Mapping

from bench.common.errors import UserError, warn
from bench.common.strangers import strangers_code, told
from bench.common.waiting import patience
from bench.inputs.draft_models import check_draft_models, load_draft_models
from bench.inputs.fitted import take_files, take_named_files
from bench.inputs.loader import Loaded
from bench.running.config import RunConfig
from bench.running.shared_model import changed_setting, torch_settings
from bench.running.step_times import AutoTimes, draft_times
from decoders import registry
from decoders.budget import AutoBudget, Budgeted
from decoders.decoder import Decoder
from decoders.spec import AUTO, Spec
from decoders.step import NotANumber


def make_decoder(text: str, defaults: Mapping[str, object] | None = None) -> Decoder:
    """The decoder of a spec, with the files that its options name, not yet bound to a model.

    defaults: see `registry.make`. ValueError says what does not fit, UserError what went wrong in
    another package.
    """
    spec = Spec.parse(text)
    _load(spec.name)
    with strangers_code(
        lambda error: f"decoder {text!r} cannot be made: {told(error)}", ValueError
    ):
        decoder = registry.make(spec, defaults)
        check_draft_models(decoder)
        try:
            take_named_files(decoder)
        except ValueError as error:
            raise ValueError(f"decoder {text!r}: {error}") from error
    return decoder


def _load(name: str) -> None:
    """Import a decoder. If it is another package's, say so first: the package may do anything."""
    points = registry.plugins().get(name, [])
    if points and name in registry.BUILT_IN:
        warn(
            f"{registry.package_of(points[0])} brings a decoder named {name!r}, which is a name of "
            "ours; ours is used. Its author must rename that entry point"
        )
    elif points:
        print(f"note: decoder {name!r} is of {registry.package_of(points[0])}", file=sys.stderr)
    known = (registry.UnknownName, registry.NotADecoder)
    before = torch_settings()
    with (
        strangers_code(lambda error: f"decoder {name!r} cannot be loaded: {told(error)}", known),
        patience(f"importing decoder {name!r}"),
    ):
        registry.load(name)
    if change := changed_setting(before):
        raise UserError(
            f"decoder {name!r}, while it was imported, has changed what all decoders share: "
            f"{change}; leave that decoder out, or mend it"
        )


def make_decoders(config: RunConfig) -> dict[str, Decoder]:
    """The decoders of a run by label, not yet bound to a model.

    UserError for a name, an option or a flag that does not fit.
    """
    config.check_decoders()
    try:
        decoders = {
            label: make_decoder(text, config.shared_options)
            for label, text in zip(config.labels, config.decoders, strict=True)
        }
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    listed = ", ".join(config.decoders)
    if config.acceptance != "lossless" and not any(each.drafts for each in decoders.values()):
        raise UserError(
            f"--acceptance {config.acceptance} has no effect on {listed}: nothing is drafted; "
            "leave it out"
        )
    for option in config.shared_options:
        if not any(option in _open_options(text) for text in config.decoders):
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
    drafting = [text for text in config.decoders if decoders[Spec.parse(text).label].drafts]
    for option, value in config.shared_options.items():
        without = [
            text for text in drafting if option not in registry.options(Spec.parse(text).name)
        ]
        if without:
            lines.append(
                f"--{option} {value} has no effect on {', '.join(without)}, which lacks this option"
            )
    return lines


def bind(
    label: str,
    decoder: Decoder,
    loaded: Loaded,
    times: AutoTimes | None = None,
) -> Decoder | Budgeted:
    """Give a decoder its files, wrap it in a budget if it needs one, and set it up on a model.

    label: what messages call it. times: for a budget; those of drafting are measured now if they
    are missing. None: the decoder needs no budget. UserError where it does not fit the model.
    """
    bound = Budgeted(decoder, AutoBudget(times.steps)) if decoder.auto else decoder
    wrong = f"decoder {label!r} cannot be set up"
    try:
        with (
            strangers_code(lambda error: f"{wrong}: {described(error, decoder)}", ValueError),
            patience(f"setting up decoder {label!r}"),
        ):
            models = load_draft_models(decoder, loaded)
            take_files(decoder, loaded.where, loaded.model, models)
            bound.setup(loaded.model)
    except ValueError as error:
        raise UserError(f"decoder {label!r} does not fit {loaded.name!r}: {error}") from error
    if isinstance(bound, Budgeted):
        draft_s = times.draft_s.get(label)
        if draft_s is None:
            with (
                strangers_code(lambda error: f"{wrong}: {described(error, decoder)}"),
                patience(f"measuring how long decoder {label!r} takes to draft"),
            ):
                draft_s = draft_times(bound)
        if (given := sorted(draft_s)) != (depths := list(decoder.draft_depths)):
            raise UserError(
                f"decoder {label!r} drafts to the depths {depths}, but the step times are of a run "
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
    return f"{told(error)}{where}"


def _line_in(error: BaseException, file: str) -> int | None:
    """The innermost line of a file in an error's traceback. None: the file is not in it."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
