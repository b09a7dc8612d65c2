"""What a judge is asked, and what its replies mean: FastChat's prompts, matches and verdicts. No network here.

Single grading asks for a grade of one answer. A pairwise match asks twice, with the answers in either order. Both turns of
a question are judged on their own; the second prompt shows the whole conversation. Maths, reasoning and coding come with a
reference answer.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

from bench.common.errors import UserError
from bench.common.files import read_rows
from bench.inputs.questions import Question
from bench.store.answer_files import Answer

NEED_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
SINGLE, PAIRWISE = "single", "pairwise"
NAMES = {  # (kind, with a reference) -> the first turn's prompt; the second's has "-multi-turn" behind it
    (SINGLE, False): "single-v1",
    (SINGLE, True): "single-math-v1",
    (PAIRWISE, False): "pair-v2",
    (PAIRWISE, True): "pair-math-v1",
}
FORMATS = {SINGLE: "[[rating]]", PAIRWISE: "[[A]]"}
NO_GRADE = -1  # the score of a reply that holds none, as in FastChat; in no average
NO_WINNER = "error"

_GRADES = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def grade(reply: str) -> int | float:
    """The first grade in double square brackets, else in single ones; NO_GRADE where there is none from 1 to 10.

    >>> [grade(text) for text in ("Rating: [[7]]", "[7]", "[[8.5]]", "seven", "[[11]]")]
    [7, 7, 8.5, -1, -1]
    """
    for pattern in _GRADES:
        if found := pattern.search(reply):
            value = float(found[1]) if "." in found[1] else int(found[1])
            return value if 1 <= value <= 10 else NO_GRADE
    return NO_GRADE


def winner(reply: str, first: str, second: str) -> str:
    """`first` or `second`, whichever answered as A or B is preferred, "tie", or NO_WINNER."""
    for mark, means in (("[[A]]", first), ("[[B]]", second), ("[[C]]", "tie")):
        if mark in reply:
            return means
    return NO_WINNER


@dataclass(frozen=True)
class Prompt:
    """One judge prompt of a file in FastChat's format."""

    name: str
    system: str
    template: str

    def fill(self, **texts: str) -> str:
        try:
            return self.template.format(**texts)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"judge prompt {self.name!r} cannot be filled in: {type(error).__name__} {error}"
            ) from error


def read_prompts(path: Path, kind: str) -> dict[str, Prompt]:
    """The four prompts of a kind, by name; UserError where the file, a prompt or a field of one is missing."""
    if not path.is_file():
        raise UserError(
            f"no judge prompts at {path}; give a file in FastChat's format with --judge-file"
        )
    rows = {str(row.get("name")): row for _, row in read_rows(path)}
    prompts = {}
    for name in (
        first + turn
        for (of, _), first in NAMES.items()
        if of == kind
        for turn in ("", "-multi-turn")
    ):
        row = rows.get(name)
        if row is None:
            raise UserError(f"{path} has no prompt {name!r}")
        fields = [row.get(field) for field in ("system_prompt", "prompt_template", "output_format")]
        if not all(isinstance(field, str) for field in fields):
            raise UserError(
                f"{path}: prompt {name!r} needs the texts system_prompt, prompt_template and output_format"
            )
        if fields[2] != FORMATS[kind]:
            raise UserError(
                f"{path}: prompt {name!r} has output format {fields[2]!r}; expected {FORMATS[kind]!r}"
            )
        _check_template(fields[1], f"{path}: prompt {name!r}")
        prompts[name] = Prompt(name, fields[0], fields[1])
    return prompts


def _check_template(template: str, where: str) -> None:
    """UserError where a template asks for more than texts by name: `str.format` would look into objects, and pad for ever."""
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if form or conversion or not (name or "x").isidentifier():
                raise ValueError(f"{{{name}}} is not the plain name of a text")
    except ValueError as error:
        raise UserError(f"{where} cannot be filled in: {error}") from error


@dataclass(frozen=True)
class Match:
    """One judgment to be made: one row of a judgment file."""

    question_id: int
    turn: int  # 1 or 2
    models: tuple[str, ...]  # one, or two
    prompt: str  # its name
    system: str
    users: tuple[str, ...]  # what is asked: once, or twice with the answers in either order

    @property
    def key(self) -> tuple:
        """What a judgment is of. Which of two models comes first does not matter, both orders are asked."""
        return self.question_id, self.turn, frozenset(self.models), self.prompt

    def row(self, judge: str, replies: Sequence[str], tstamp: float) -> dict:
        """The judgment in FastChat's format."""
        about = {"turn": self.turn, "tstamp": tstamp}
        if len(self.models) == 1:
            return {
                "question_id": self.question_id,
                "model": self.models[0],
                "judge": [judge, self.prompt],
                "user_prompt": self.users[0],
                "judgment": replies[0],
                "score": grade(replies[0]),
                **about,
            }
        return {
            "question_id": self.question_id,
            "model_1": self.models[0],
            "model_2": self.models[1],
            "g1_winner": winner(replies[0], "model_1", "model_2"),
            "g2_winner": winner(replies[1], "model_2", "model_1"),
            "judge": [judge, self.prompt],
            "g1_user_prompt": self.users[0],
            "g1_judgment": replies[0],
            "g2_user_prompt": self.users[1],
            "g2_judgment": replies[1],
            **about,
        }


def has_verdict(row: dict) -> bool:
    """Whether the judge's reply could be read."""
    if "score" in row:
        return row["score"] != NO_GRADE
    return NO_WINNER not in (row["g1_winner"], row["g2_winner"])


def make_matches(
    questions: Iterable[Question],
    answers: dict[str, dict[int, Answer]],
    contests: Iterable[tuple[str, ...]],
    prompts: dict[str, Prompt],
    references: dict[int, Answer],
) -> list[Match]:
    """Every judgment that can be made, question by question. Of several choices the first is judged, as in FastChat.

    `contests` are the models to be judged: singly or in pairs. What a model did not answer is left out.
    """
    contests = list(contests)
    made = []
    for question in questions:
        asked = 2 if len(question.turns) == 2 else 1
        for models in contests:
            given = [answers[model].get(question.question_id) for model in models]
            for turn in range(1, asked + 1):
                if not all(
                    answer is not None and answer.choices[0].answered(turn) for answer in given
                ):
                    break
                texts = [answer.choices[0].turns for answer in given if answer is not None]
                made.append(_match(question, turn, models, texts, prompts, references))
    return made


def _match(
    question: Question,
    turn: int,
    models: tuple[str, ...],
    answers: list[tuple[str, ...]],
    prompts: dict[str, Prompt],
    references: dict[int, Answer],
) -> Match:
    with_reference = question.category in NEED_REFERENCE
    kind = SINGLE if len(models) == 1 else PAIRWISE
    prompt = prompts[NAMES[kind, with_reference] + ("" if turn == 1 else "-multi-turn")]
    # Names of what the templates show: question, answer_a, ... in the first turn; question_1, answer_a_2, ... in the second.
    texts = {"question": question.turns[0]}
    texts |= {f"question_{at}": text for at, text in enumerate(question.turns, start=1)}
    if with_reference:
        texts |= _reference(question, turn, references)

    def shown(labels: tuple[str, ...], given: Sequence[tuple[str, ...]]) -> str:
        of_each = {}
        for label, turns in zip(labels, given, strict=True):
            of_each[label] = turns[0]
            of_each |= {f"{label}_{at}": text for at, text in enumerate(turns[:turn], start=1)}
        return prompt.fill(**texts, **of_each)

    if kind == SINGLE:
        users = (shown(("answer",), answers),)
    else:
        users = tuple(shown(("answer_a", "answer_b"), order) for order in (answers, answers[::-1]))
    return Match(question.question_id, turn, models, prompt.name, prompt.system, users)


def _reference(question: Question, turn: int, references: dict[int, Answer]) -> dict[str, str]:
    answer = references.get(question.question_id)
    if answer is None or len(answer.choices[0].turns) < turn:
        raise UserError(
            f"question {question.question_id} ({question.category}) is judged against a reference answer, but the reference "
            f"file has none to its turn {turn}"
        )
    return {
        f"ref_answer_{at}": text for at, text in enumerate(answer.choices[0].turns[:turn], start=1)
    }
