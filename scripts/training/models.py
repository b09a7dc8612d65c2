"""Loading the model and the chat that a script's flags name."""

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from bench.common.errors import UserError, warn
from bench.common.files import write_atomically
from bench.inputs.chat import Chat
from bench.inputs.loader import Loaded, load
from bench.inputs.locations import check_model_name
from settings.training import ModelSettings


def load_model(settings: ModelSettings) -> Loaded:
    """The model of the settings. UserError says what does not fit.

    The text files are looked for first, because loading the model may take long.
    """
    check_model_name(settings.model)
    for name in ("corpus", "answers"):
        path = getattr(settings, name, None)
        if path is not None and not path.is_file():
            raise UserError(f"--{name} {path} is not a file")
    return load(
        settings.model,
        settings.device,
        settings.dtype,
        trust_remote_code=settings.trust_remote_code,
    )


def load_model_with_heads(settings: ModelSettings, purpose: str) -> Loaded:
    """As `load_model`, but UserError where the model has no Medusa heads.

    purpose: how the error message goes on, such as " to measure".
    """
    loaded = load_model(settings)
    if loaded.model.heads is None:
        raise UserError(f"{settings.model!r} has no Medusa heads{purpose}")
    return loaded


def kept_time(out: Path) -> datetime:
    """The time of the first training in a folder, which all trainings in it tell the template.

    So they learn from the same prompts, also where a template writes the date. UserError where the
    file that keeps it is damaged.
    """
    file = out / "template_time.txt"
    if not file.exists():
        write_atomically(file, datetime.now(timezone.utc).isoformat() + "\n")
    try:
        return datetime.fromisoformat(file.read_text().strip())
    except ValueError as error:
        raise UserError(f"{file} holds no time ({error}); remove it") from error


def with_chat(
    loaded: Loaded, template: str | None, now: datetime | None = None
) -> tuple[Loaded, Chat]:
    """The model and its chat. The model then also has the template's ends of answers.

    now: the time that the template is told. None: that of this call. Passes on the warnings and
    errors of `Chat.check`.
    """
    chat = Chat.of(loaded.tokenizer, template, now)
    for text in (*loaded.warnings, *chat.check()):
        warn(text)
    has_stop = chat.stops if chat.stop_strings else None
    return replace(loaded, eos=loaded.eos | chat.stop_ids, has_stop=has_stop), chat
