"""run.json: a run's configuration, its machine and its times.

The records here are frozen. A field that an older version did not write is None. A field that this
version does not know is kept, and written again where the run is resumed.
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from bench.common.errors import UserError
from bench.common.files import parse_json, read_document, shown
from bench.common.validation import first_error
from decoders.spec import Spec

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
_Texts = Annotated[list[str], Field(fail_fast=True)]


class Record(BaseModel):
    """A frozen part of run.json."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    def as_json(self) -> dict[str, object]:
        """The fields that are in the file, known or not, as JSON has them."""
        return self.model_dump(exclude_unset=True)


class Config(Record):
    """The configuration of a run: those fields of `RunConfig` that reports read."""

    decoders: _Texts  # Specs, in the order given.
    model: str | None = None  # As the user named it.
    questions: str | None = None
    temperature: float | None = None  # None: by category.
    acceptance: str | None = None
    top_p: float | None = None
    posterior_threshold: float | None = None
    posterior_alpha: float | None = None
    # The next four are for all decoders that have the option. nodes: a number or "auto".
    nodes: object = None
    topk: object = None
    depth: object = None
    tree: object = None
    max_new_tokens: int | None = None
    num_choices: int
    seed: int | None = None

    @field_validator("decoders")
    @classmethod
    def _can_be_parsed(cls, texts: list[str]) -> list[str]:
        for text in texts:
            Spec.parse(text)
        return texts

    @property
    def labels(self) -> list[str]:
        """What tables and files call the decoders, in the order given."""
        return [Spec.parse(text).label for text in self.decoders]


class Questions(Record):
    """The question set."""

    name: str
    sha256: str | None = None  # Digest of the file.
    count: int | None = None


class ModelFacts(Record):
    """The model that was loaded."""

    name: str
    id: str | None = None  # As the user named it.
    identity: str | None = None  # A digest that tells it from every other model.
    heads: int | None = None


class Git(Record):
    """The checkout whose code ran. None: it was no checkout."""

    commit: str | None = None
    dirty: bool | None = None  # Whether it had changes that were not committed.


class Environment(Record):
    """The machine and versions that the times of a run depend on."""

    python: str | None = None
    torch: str | None = None
    transformers: str | None = None
    fschat: str | None = None
    platform: str | None = None
    device: str | None = None
    device_type: str | None = None
    dtype: str | None = None
    threads: int | None = None
    workers: int | None = None


class Session(Record):
    """One sitting: a start of the command that had something to do."""

    command: _Texts | None = None
    git: Git | None = None
    environment: Environment | None = None
    step_times: dict | None = None  # `StepTimes` of decoders with nodes=auto. None: not measured.
    draft_times: dict | None = None  # Decoder with nodes=auto -> seconds of drafting by depth.
    workers: list | None = None  # For each worker, its own facts. None: there were no workers.
    warnings: list | None = None
    start: str | None = None  # ISO 8601.
    peak_bytes: int | None = None  # The most memory that the sitting took. None: not known.


def _is_question_id(text: str) -> bool:
    """Is this key an integer as we write it?"""
    return text.removeprefix("-").isdecimal() and len(text) < 20 and text == str(int(text))


def _question_turns(value: object) -> dict[int, int]:
    if not isinstance(value, dict):
        raise ValueError(f"question_turns is {shown(value)}, expected an object")
    for question_id, turns in value.items():
        if not _is_question_id(question_id) or type(turns) is not int or turns < 1:
            raise ValueError("its question_turns are no numbers of turns by question_id")
    return {int(question_id): turns for question_id, turns in value.items()}


def _question_texts(value: object) -> dict[int, list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"question_texts is {shown(value)}, expected an object")
    for question_id, texts in value.items():
        is_list = isinstance(texts, list) and all(isinstance(text, str) for text in texts)
        if not _is_question_id(question_id) or not is_list:
            raise ValueError("its question_texts are no lists of texts by question_id")
    return {int(question_id): texts for question_id, texts in value.items()}


class Run(Record):
    """run.json. `command` to `start` are those of the first sitting, which `sessions` repeats."""

    schema_version: int
    config: Config
    start_unix: float  # Seconds since 1970.
    questions: Questions
    # question_id -> how many turns it has, in the order in which questions are asked.
    question_turns: Annotated[dict[int, int], BeforeValidator(_question_turns)]
    # question_id -> the user's texts, turn by turn. Older runs have none.
    question_texts: Annotated[dict[int, list[str]], BeforeValidator(_question_texts)] = {}
    model: ModelFacts
    command: _Texts | None = None
    git: Git | None = None
    environment: Environment
    step_times: dict | None = None
    draft_times: dict | None = None
    workers: list | None = None
    warnings: list | None = None
    start: str  # ISO 8601.
    sessions: Annotated[list[Session], Field(fail_fast=True)]
    end: str | None = None  # ISO 8601. None: in progress, or interrupted.

    @classmethod
    def of_json(cls, fields: object) -> "Run":
        """The run of a run.json's content. ValueError says what is wrong with it."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ValueError(first_error(error)) from None

    @classmethod
    def begun(cls, config: dict, model: dict, session: dict[str, object], **facts: object) -> "Run":
        """A new run in its first sitting. `facts`: questions, question_turns, ..."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "config": config,
            **facts,
            "model": model,
            **session,
            "sessions": [session],
            "end": None,
        }
        return cls.of_json(plain(fields))

    def resumed(self, session: dict[str, object]) -> "Run":
        """The same run with a further sitting."""
        sessions = [*self.sessions, Session.model_validate(plain(session))]
        return self.model_copy(update={"sessions": sessions, "end": None})

    def ended(self, now: str, peak_bytes: int | None) -> "Run":
        """The same run at its end, with the memory that its last sitting took."""
        *before, last = self.sessions
        sessions = [*before, last.model_copy(update={"peak_bytes": peak_bytes})]
        return self.model_copy(update={"sessions": sessions, "end": now})


def plain(fields: object) -> object:
    """The same after writing and reading JSON: tuples become lists, keys become strings."""
    return json.loads(json.dumps(fields))


def read_run(folder: Path) -> Run:
    """The run.json of a run's folder. UserError where this version cannot read one there."""
    path = folder / RUN_FILE
    if not path.exists():
        raise UserError(f"{folder} is not a run's folder: it has no {RUN_FILE}")
    content = read_document(path)
    try:
        fields = parse_json(content)
        version = fields.get("schema_version") if isinstance(fields, dict) else None
        if version not in (None, SCHEMA_VERSION):
            raise UserError(
                f"{path} has schema version {shown(version)}; this version reads {SCHEMA_VERSION}"
            )
        return Run.of_json(fields)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it, or give another --out"
        ) from error
