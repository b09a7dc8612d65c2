"""run.json: a run's configuration, its machine and its times.

The records here are frozen. A field that an older version did not write is None. A field that this
version does not know is kept, and written again where the run is resumed.
"""

import json
from collections.abc import Iterable
from datetime import datetime
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
from bench.common.files import read_document, shown
from bench.common.strict_json import parse_json
from bench.common.validation import first_error
from bench.store.question_id import QuestionId, parse_question_id
from bench.store.turn import Key, turns_file
from decoders.spec import Spec

RUN_FILE = "run.json"
SCHEMA_VERSION = 1
QUESTION_FIELDS = ("questions", "question_turns", "question_texts")
TIE = 1e-4  # Logits in float32 vary by less where a forward pass is computed in another order.
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
    limit: int | None = None  # Only the first so many questions. None: all.

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

    @property
    def is_lossless(self) -> bool:
        """Whether all answers are to have greedy's tokens, whatever is drafted."""
        return self.temperature == 0 or self.acceptance == "lossless"


class Questions(Record):
    """The question set."""

    name: str
    sha256: str | None = None  # Digest of the file.
    count: int | None = None


class ModelFacts(Record):
    """The model that was loaded."""

    name: str
    id: str | None = None  # As the user named it.
    # Digests that tell it from every other model:
    identity: str | None = None  # Of its files' names, sizes and ends.
    contents: str | None = None  # Of whole files.
    heads: int | None = None
    prompt: str | None = None  # A digest of the prompt of a made-up conversation.
    tokenizer: str | None = None  # A digest of the tokens of a text with all kinds of characters.

    def comparable(self, now: "ModelFacts") -> dict[str, object]:
        """The facts of a model that is loaded now, without those that an older run did not record.

        These are `contents`, `prompt` and `tokenizer`.
        """
        recent = ("contents", "prompt", "tokenizer")
        unknown = {name for name in recent if getattr(self, name) is None}
        return now.model_dump(exclude_unset=True, exclude=unknown)


class Git(Record):
    """The checkout whose code ran. None: it was no checkout."""

    commit: str | None = None
    dirty: bool | None = None  # Whether it had changes that were not committed.

    @property
    def words(self) -> str:
        return f"commit {(self.commit or 'unknown')[:9]}{' with changes' if self.dirty else ''}"


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
    """One session: a start of the command that had something to do."""

    command: _Texts | None = None
    git: Git | None = None
    environment: Environment | None = None
    step_times: dict | None = None  # `StepTimes` of decoders with nodes=auto. None: not measured.
    draft_times: dict | None = None  # Decoder with nodes=auto -> seconds of drafting by depth.
    # How much each measurement of step times varied: see `bench.running.step_times`.
    step_times_spread: list | None = None
    workers: list | None = None  # For each worker, its own facts. None: there were no workers.
    warnings: list | None = None  # What the user was told about the model and the machine.
    start: str | None = None  # ISO 8601.
    peak_bytes: int | None = None  # The most memory that the session took. None: not known.


class Difference(Record):
    """Where a lossless decoder's turn first differs from greedy's."""

    question_id: QuestionId
    decoder: str
    choice: int
    turn: int
    token: int | None = None  # Its index in the turn. This and the rest: None if not known.
    ours: int | None = None  # The decoder's token there. None: its turn has ended.
    theirs: int | None = None  # Greedy's.
    highest: list[int] | None = None  # The two tokens with the highest scores there.
    gap: float | None = None  # The change of one logit that makes these equal, if it is finite.

    @classmethod
    def of(cls, key: Key, **found: object) -> "Difference":
        """The difference in a turn. found: what is known of the token that differs."""
        question_id, decoder, choice, turn = key
        return cls(question_id=question_id, decoder=decoder, choice=choice, turn=turn, **found)

    @property
    def is_tie(self) -> bool:
        """Whether the gap is within the rounding of float32."""
        return self.gap is not None and self.gap <= TIE


def _question_turns(value: object) -> dict[QuestionId, int]:
    if not isinstance(value, dict):
        raise ValueError(f"question_turns is {shown(value)}, expected an object")
    if not all(type(turns) is int and turns > 0 for turns in value.values()):
        raise ValueError("its question_turns are no numbers of turns by question_id")
    return {parse_question_id(question_id): turns for question_id, turns in value.items()}


def _question_texts(value: object) -> dict[QuestionId, list[str]]:
    if not isinstance(value, dict):
        raise ValueError(f"question_texts is {shown(value)}, expected an object")
    for texts in value.values():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("its question_texts are no lists of texts by question_id")
    return {parse_question_id(question_id): texts for question_id, texts in value.items()}


class Run(Record):
    """run.json. `command` to `start` are those of the first session, which `sessions` repeats."""

    schema_version: int
    config: Config
    start_unix: float  # Seconds since 1970.
    questions: Questions
    # question_id -> how many turns it has, in the order in which questions are asked.
    question_turns: Annotated[dict[QuestionId, int], BeforeValidator(_question_turns)]
    # question_id -> the user's texts, turn by turn. Older runs have none.
    question_texts: Annotated[dict[QuestionId, list[str]], BeforeValidator(_question_texts)] = {}
    model: ModelFacts
    command: _Texts | None = None
    git: Git | None = None
    environment: Environment
    step_times: dict | None = None
    draft_times: dict | None = None
    step_times_spread: list | None = None
    workers: list | None = None
    warnings: list | None = None
    start: str  # ISO 8601. Also the time that the run's chat template is told, in every session.
    sessions: Annotated[list[Session], Field(fail_fast=True)]
    end: str | None = None  # ISO 8601. None: in progress, or interrupted.
    # Turns of lossless decoders that differ from greedy's. None: not looked for yet.
    differences: Annotated[list[Difference], Field(fail_fast=True)] | None = None

    @property
    def turns_each(self) -> int:
        """How many turns each decoder is asked."""
        return sum(self.question_turns.values()) * self.config.num_choices

    def not_asked(self, keys: Iterable[Key]) -> list[Key]:
        """Those of the keys that are of no turn of this run."""
        labels, choices = set(self.config.labels), range(self.config.num_choices)
        return [
            (question_id, decoder, choice, turn)
            for question_id, decoder, choice, turn in keys
            if decoder not in labels
            or choice not in choices
            or not 1 <= turn <= self.question_turns.get(question_id, 0)
        ]

    @property
    def began(self) -> datetime:
        """`start` as a time. UserError where it is none."""
        try:
            return datetime.fromisoformat(self.start)
        except ValueError:
            raise UserError(
                f"{RUN_FILE} has start {shown(self.start)}; expected a time such as "
                "2026-01-31T12:00:00+00:00"
            ) from None

    @classmethod
    def of_json(cls, fields: object) -> "Run":
        """The run of a run.json's content. ValueError says what is wrong with it."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise ValueError(first_error(error)) from None

    @classmethod
    def begun(cls, config: dict, model: dict, session: dict[str, object], **facts: object) -> "Run":
        """A new run in its first session. `facts`: questions, question_turns, ..."""
        fields = {
            "schema_version": SCHEMA_VERSION,
            "config": config,
            **facts,
            "model": model,
            **session,
            "sessions": [session],
            "end": None,
        }
        return cls.of_json(through_json(fields))

    def resumed(self, config: dict, session: dict[str, object], **facts: object) -> "Run":
        """The same run with a further session, which may ask more questions.

        config, facts: as in `begun`. The beginning stays that of the first session. Differences are
        looked for again once all is answered.
        """
        now = Run.begun(config, self.model.as_json(), session, **facts)
        asked = {name: getattr(now, name) for name in QUESTION_FIELDS}
        more = {"config": now.config, "sessions": [*self.sessions, *now.sessions], "end": None}
        if self.differences is not None:
            more["differences"] = None
        return self.model_copy(update=asked | more)

    @property
    def codes(self) -> list[str]:
        """The code of its sessions, where recorded: commits, and whether they had changes."""
        states = [each.git for each in self.sessions if each.git is not None and each.git.commit]
        return list(dict.fromkeys(git.words for git in states))

    def ended(self, now: str, peak_bytes: int | None) -> "Run":
        """The same run at its end, with the memory that its last session took."""
        *before, last = self.sessions
        sessions = [*before, last.model_copy(update={"peak_bytes": peak_bytes})]
        return self.model_copy(update={"sessions": sessions, "end": now})


def through_json(fields: object) -> object:
    """The same, written and read as JSON: tuples become lists, keys become strings."""
    return json.loads(json.dumps(fields))


def holds_run(folder: Path) -> bool:
    """Whether a folder holds a run, or what is left of one: run.json, or turns."""
    return (folder / RUN_FILE).exists() or turns_file(folder).exists()


def read_run(folder: Path) -> Run:
    """The run.json of a run's folder. UserError where this version cannot read one there."""
    path = folder / RUN_FILE
    if not path.exists():
        raise UserError(f"{folder} is not a run's folder: it has no {RUN_FILE}")
    try:
        return read_run_file(path)
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it, or give another --out"
        ) from error


def read_run_file(path: Path) -> Run:
    """The run of a run.json, under any name. ValueError says what is wrong with its content.

    UserError where it cannot be read, or another version wrote it.
    """
    fields = parse_json(read_document(path))
    version = fields.get("schema_version") if isinstance(fields, dict) else None
    if version not in (None, SCHEMA_VERSION):
        raise UserError(
            f"{path} has schema version {shown(version)}; this version reads {SCHEMA_VERSION}"
        )
    return Run.of_json(fields)
