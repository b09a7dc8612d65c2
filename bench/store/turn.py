"""One generated turn, and the rows of turns.jsonl, which hold one turn each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainValidator, TypeAdapter, ValidationError

from bench.common.errors import UserError
from bench.common.files import json_line, read_lines, shown, tell_left_out
from bench.common.strict_json import parse_json
from bench.common.validation import first_error
from bench.store.question_id import QuestionId, check_question_id, in_order

TURNS_FILE = "turns.jsonl"
PUBLISHED_FILE = f"{TURNS_FILE}.gz"  # The same rows, as runs are published.
LONGEST_CATEGORY = 100  # Characters. A category is shown in tables and under figures.
MOST_TURNS = 1000  # Most turns of a conversation.
FINISH_REASONS = ("eos", "stop", "length", "context", "error")
KEY = ("question_id", "decoder", "choice", "turn")  # The fields that make a `Key`.
Key = tuple[QuestionId, str, int, int]  # (question_id, decoder, choice, turn) of a turn.

# The types of a row's fields. They are checked where a row is read, not where a Turn is made.
_LIMIT = 1 << 63  # Every number in a row is smaller.
_INT32_LIMIT = 1 << 31  # Frames hold numbers of nodes as int32.
_Integer = Annotated[int, Field(strict=True, ge=-_LIMIT, lt=_LIMIT)]
_AcceptLength = Annotated[int, Field(strict=True, ge=1, lt=_LIMIT)]
_NodeCount = Annotated[int, Field(strict=True, ge=1, lt=_INT32_LIMIT)]
_Number = Annotated[float, Field(strict=True)]
_Text = Annotated[str, Field(strict=True)]
_Category = Annotated[str, Field(strict=True, min_length=1, max_length=LONGEST_CATEGORY)]
_List = Field(strict=True, fail_fast=True)


@dataclass(frozen=True)
class Turn:
    """One generated turn. A failed one has `error` and no tokens, times or text."""

    question_id: Annotated[QuestionId, PlainValidator(check_question_id)]
    category: _Category
    decoder: _Text  # Its label. Where none was given, that is its spec: "dynamic:nodes=16".
    choice: _Integer  # 0-based. Several choices are several samples of the same question.
    turn: _Integer  # 1-based place in the conversation.
    temperature: _Number
    # The seed of this turn, derived from the run's seed, the question, the choice and the turn.
    seed: _Integer
    prompt_tokens: _Integer
    # [tokens] committed tokens, including the one that ends the answer.
    token_ids: Annotated[list[_Integer], _List]
    # [steps] tokens that each step committed.
    accept_lengths: Annotated[list[_AcceptLength], _List]
    # [steps] nodes of the tree that each step verified, root included.
    nodes: Annotated[list[_NodeCount], _List]
    prefill_s: _Number  # Seconds.
    decode_s: _Number  # Seconds from the end of the prefill to the last committed token.
    finish_reason: _Text  # One of FINISH_REASONS.
    error: _Text | None
    text: _Text
    # [steps] characters of `text` that are complete after each step. Older rows have none.
    step_ends: Annotated[list[_Integer], _List] = field(default_factory=list)
    # [steps] depth that each step's draft could reach (nodes=auto). 0: it drafted nothing. Empty:
    # not nodes=auto, or an older row.
    draft_depths: Annotated[list[_Integer], _List] = field(default_factory=list)

    @property
    def key(self) -> Key:
        return self.question_id, self.decoder, self.choice, self.turn

    @property
    def sort_key(self) -> tuple:
        """As `key`, but it also sorts turns where some question ids are integers and some texts."""
        return in_order(self.question_id), self.decoder, self.choice, self.turn

    @property
    def failed(self) -> bool:
        return self.finish_reason == "error"


def turn_in_words(key: Key) -> str:
    """A turn as a message names it.

    >>> turn_in_words((81, "dynamic", 0, 2))
    'question 81, dynamic, choice 0, turn 2'
    """
    question_id, decoder, choice, turn = key
    return f"question {question_id}, {decoder}, choice {choice}, turn {turn}"


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two answers share before they first differ, or before one of them ends.

    >>> common_length([5, 6, 7], [5, 6, 8, 9]), common_length([5], [5, 6])
    (2, 1)
    """
    pairs = zip(one, other, strict=False)
    shorter = min(len(one), len(other))
    return next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), shorter)


_ROW = TypeAdapter(Turn)


def turns_file(folder: Path) -> Path:
    """The file of a run's turns. Where turns.jsonl is missing, it is the published one."""
    is_published = not (folder / TURNS_FILE).exists() and (folder / PUBLISHED_FILE).exists()
    return folder / (PUBLISHED_FILE if is_published else TURNS_FILE)


def read_turns(path: Path, leave_out_damaged: bool = False) -> tuple[list[Turn], list[str]]:
    """The turns of a file, and warnings. Of several rows of one turn, the last one counts.

    Without a file there are no turns. A last line that a crash cut off is left out with a warning.
    UserError names any other line that is not a turn; with `leave_out_damaged`, a warning does, and
    the line is left out.
    """
    warnings: list[str] = []
    damaged: list[str] = []
    turns: dict[Key, Turn] = {}
    repeated: dict[Key, None] = {}  # An ordered set. A turn is only made again where it failed.
    if not path.exists():
        return [], warnings
    warn_of_damaged = damaged.append if leave_out_damaged else None
    for _, turn in iter_turns(path, warnings.append, warn_of_damaged):
        if turn.key in turns and not turns[turn.key].failed:
            repeated[turn.key] = None
        turns[turn.key] = turn
    tell_left_out(path, damaged, warnings.append)
    if repeated:
        warnings.append(
            f"{path} has {len(repeated)} finished turns more than once, first "
            f"{turn_in_words(next(iter(repeated)))}; the last row of each counts"
        )
    return list(turns.values()), warnings


def iter_turns(
    path: Path,
    warn_of_torn: Callable[[str], None],
    warn_of_damaged: Callable[[str], None] | None = None,
) -> Iterator[tuple[int, Turn]]:
    """(byte offset of its row, turn) for each row of a file, in the order of the file.

    warn_of_torn: called with a message where the last line is cut off.
    warn_of_damaged: called with a message about any other line that is not a turn. None: a
        UserError names the first of them.
    """
    for number, offset, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            turn = parse_turn(line)
        except ValueError as error:
            if not line.endswith(b"\n"):  # A whole row is followed by a newline.
                warn_of_torn(f"{where} is torn and left out")
                return
            problem = f"{where} is not a turn of this version ({error})"
            if warn_of_damaged is None:
                raise UserError(f"{problem}; repair or remove the line") from error
            warn_of_damaged(problem)
        else:
            yield offset, turn


def parse_turn(line: bytes) -> Turn:
    """The turn of a row of turns.jsonl. ValueError says what is wrong with the row."""
    row = parse_json(line, nan=True)  # A time may be NaN. A report warns of it.
    try:
        turn = _ROW.validate_python(row)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None
    if problem := _contradiction(turn):
        raise ValueError(problem)
    return turn


def check_turn(turn: Turn) -> None:
    """ValueError says why a turn could not be read again, if it were written."""
    parse_turn(json_line(asdict(turn)).encode())


def _contradiction(turn: Turn) -> str:
    """How fields contradict each other although their types are right. Empty: they do not."""
    steps = len(turn.accept_lengths)
    if sum(turn.accept_lengths) != len(turn.token_ids) or len(turn.nodes) != steps:
        return "accept_lengths do not add up to the tokens"
    if any(length > nodes for length, nodes in zip(turn.accept_lengths, turn.nodes, strict=True)):
        return "a step committed more tokens than it verified nodes"
    for name, by_step in (("step_ends", turn.step_ends), ("draft_depths", turn.draft_depths)):
        if by_step and len(by_step) != steps:
            return f"{name} are not one for each step"
    if turn.finish_reason not in FINISH_REASONS:
        return f"finish_reason is {shown(turn.finish_reason)}"
    if turn.failed and turn.token_ids:
        return "a turn that failed has tokens"
    if min(turn.prefill_s, turn.decode_s) < 0:
        return "a time is below 0"
    if any(abs(each) >= _LIMIT for each in (turn.temperature, turn.prefill_s, turn.decode_s)):
        return "a temperature or time is out of its range"
    return ""
