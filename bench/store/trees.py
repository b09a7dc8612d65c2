"""The trees of an answer: what every step drafted and what it kept.

Timed runs never record them. An answer is decoded a second time, from the same prompt with the same seed, so it is the same:

    python scripts/record_trees.py results/<run> --questions 81,82     trees.jsonl in a run's folder, for its report.html
    python scripts/show_tree.py --prompt "..." --steps 1,2,3           pictures of one answer's trees
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from bench.common.errors import UserError
from bench.common.files import json_line, read_rows, write_atomically
from bench.store.records import Key
from decoders.loop import Step
from decoders.tree import NO_GUESS

TREES_FILE = "trees.jsonl"
LEAST = -1e6  # log probability that is shown, as JSON has no infinity
INVISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"})


@dataclass(frozen=True)
class StepTree:
    """One step's tree: node 0 is its root, parents stand before their children."""

    parent: list[int]  # [nodes]; the root is its own
    token: list[int]  # [nodes] ids
    log_prob: list[float] | None  # [nodes] the decoder's own of each path; None where it has none
    kept: list[int]  # the nodes of the accepted path, the root first

    @classmethod
    def of(cls, step: Step) -> "StepTree":
        """ValueError where the decoder has no trees."""
        if step.draft is None or step.path is None:
            raise ValueError("this decoder drafts no tree that could be shown")
        draft, log_prob = step.draft, step.draft.log_prob
        if log_prob is not None:
            if log_prob.isnan().any():
                raise ValueError("the log probabilities of a tree are NaN")
            log_prob = log_prob.clamp(min=LEAST)
        return cls(
            draft.tree.parent.tolist(),
            draft.token.tolist(),
            None if log_prob is None else [round(each, 3) for each in log_prob.tolist()],
            list(dict.fromkeys([0, *step.path.tolist()])),  # a path is padded with its last node
        )


@dataclass(frozen=True)
class AnswerTrees:
    """The trees of one turn, step by step."""

    question_id: int
    decoder: str
    choice: int
    turn: int
    steps: list[StepTree]
    text: dict[int, str]  # of every token in them

    @property
    def key(self) -> Key:
        return self.question_id, self.decoder, self.choice, self.turn


def token_texts(tokenizer: PreTrainedTokenizerBase, steps: Iterable[StepTree]) -> dict[int, str]:
    """What each token of some trees says, with visible white space; part of a character's bytes as the tokenizer names it."""
    found = {}
    for token in sorted({token for step in steps for token in step.token}):
        if token == NO_GUESS:
            found[token] = "(none)"
            continue
        text = tokenizer.decode([token])
        found[token] = (
            tokenizer.convert_ids_to_tokens(token) if "\ufffd" in text else text
        ).translate(INVISIBLE)
    return found


def write_trees(folder: Path, answers: Iterable[AnswerTrees]) -> None:
    """Replace a run's trees.jsonl."""
    write_atomically(folder / TREES_FILE, "".join(json_line(asdict(answer)) for answer in answers))


def read_trees(folder: Path) -> dict[Key, AnswerTrees]:
    """The recorded trees of a run by turn, none where none were; UserError names the line that is not as it must be."""
    path = folder / TREES_FILE
    answers = {}
    for number, row in read_rows(path) if path.exists() else ():
        try:
            steps = [_checked(StepTree(**step)) for step in row["steps"]]
            answer = AnswerTrees(
                **row
                | {
                    "steps": steps,
                    "text": {int(token): str(text) for token, text in row["text"].items()},
                }
            )
            if not answer.text.keys() >= {token for step in steps for token in step.token}:
                raise ValueError("a token has no text")
            answers[answer.key] = answer
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}, line {number} is not an answer's trees ({error}); remove the file and record them again with "
                "scripts/record_trees.py"
            ) from error
    return answers


def _checked(step: StepTree) -> StepTree:
    nodes = len(step.parent)
    if not all(type(each) is int for each in (*step.parent, *step.token, *step.kept)):
        raise ValueError("a node is no integer")
    whole = all(0 <= above < max(node, 1) for node, above in enumerate(step.parent))
    if (
        not nodes
        or not whole
        or len(step.token) != nodes
        or not all(0 <= node < nodes for node in step.kept)
    ):
        raise ValueError("a step holds no tree")
    if step.log_prob is not None and [type(each) for each in step.log_prob] != [float] * nodes:
        raise ValueError("log_prob is not a number for each node")
    return step
