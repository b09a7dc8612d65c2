"""trees.jsonl: what every step of some answers drafted, and what it kept.

Timed runs never record trees. scripts/record_trees.py decodes an answer a second time, from the
same prompt with the same seed, and so gets the same answer:

    python scripts/record_trees.py results/<run> --questions 81,82    for the run's report.html
    python scripts/show_tree.py --prompt "..." --steps 1,2,3          pictures of one answer
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import json_line, read_rows, write_atomically
from bench.store.question_id import QuestionId
from bench.store.turn import Key, Turn

TREES_FILE = "trees.jsonl"
LEAST_LOG_PROB = -1e6  # Replaces log(0), as JSON has no infinity.


@dataclass(frozen=True)
class StepTree:
    """The tree of one step. Node 0 is the root; parents come before their children."""

    parent: list[int]  # [nodes]; the root is its own parent.
    token: list[int]  # [nodes] token ids.
    log_prob: list[float] | None  # [nodes] of each path. None: the decoder gives none.
    kept: list[int]  # Nodes of the accepted path, the root first.


@dataclass(frozen=True)
class AnswerTrees:
    """The trees of one turn."""

    question_id: QuestionId
    decoder: str
    choice: int
    turn: int
    steps: list[StepTree]
    text: dict[int, str]  # Token id -> its text, for every token in the trees.

    @property
    def key(self) -> Key:
        return self.question_id, self.decoder, self.choice, self.turn

    def are_of(self, turn: Turn) -> bool:
        """Whether these steps committed the tokens of a turn. The last one may have kept more."""
        if len(self.steps) != len(turn.accept_lengths):
            return False
        pairs = zip(self.steps, turn.accept_lengths, strict=True)
        tokens = [step.token[node] for step, length in pairs for node in step.kept[:length]]
        return tokens == turn.token_ids


def write_trees(folder: Path, answers: Iterable[AnswerTrees]) -> None:
    """Replace a run's trees.jsonl."""
    write_atomically(folder / TREES_FILE, "".join(json_line(asdict(answer)) for answer in answers))


def read_trees(folder: Path) -> dict[Key, AnswerTrees]:
    """The recorded trees of a run, by turn; empty where none were recorded.

    UserError names a line that does not hold the trees of an answer.
    """
    path = folder / TREES_FILE
    answers = {}
    for number, row in read_rows(path) if path.exists() else ():
        try:
            answer = _answer(row)
            answers[answer.key] = answer
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number} is not an answer's trees ({error}); remove the file and "
                "record them again with scripts/record_trees.py"
            ) from error
    return answers


def _answer(row: dict) -> AnswerTrees:
    """KeyError, TypeError, ValueError or AttributeError where a row holds no trees."""
    steps = [_checked(StepTree(**step)) for step in row["steps"]]
    text = {int(token): str(text) for token, text in row["text"].items()}
    if not text.keys() >= {token for step in steps for token in step.token}:
        raise ValueError("a token has no text")
    return AnswerTrees(**row | {"steps": steps, "text": text})


def _checked(step: StepTree) -> StepTree:
    """The same step. ValueError where it holds no tree."""
    nodes = len(step.parent)
    if not all(type(each) is int for each in (*step.parent, *step.token, *step.kept)):
        raise ValueError("a node is no integer")
    has_parents_first = all(0 <= above < max(node, 1) for node, above in enumerate(step.parent))
    has_its_kept = all(0 <= node < nodes for node in step.kept)
    if not nodes or not has_parents_first or len(step.token) != nodes or not has_its_kept:
        raise ValueError("a step holds no tree")
    if step.log_prob is not None and [type(each) for each in step.log_prob] != [float] * nodes:
        raise ValueError("log_prob is not a number for each node")
    return step
