"""Prompts for the judge and matches between models, as in FastChat.

Nothing here calls a judge. Single grading asks for a grade of one answer. A pairwise match asks
twice, once with the two answers in each order. Each turn of a question is judged on its own, and
the prompt for the second turn shows the whole conversation. Maths, reasoning and coding are judged
against a reference answer.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from string import Formatter

from bench.common.errors import UserError
from bench.common.files import read_rows
from bench.inputs.questions import Question, normalised
from bench.store.answer_files import Answer
from bench.store.question_id import QuestionId
from llm_judge.verdicts import grade, winner

MODES = ("single", "pairwise-baseline", "pairwise-all")  # Values of --mode.
# Categories that need a reference. Upper and lower case are not distinguished.
NEED_REFERENCE = ("math", "reasoning", "coding", "arena-hard-200")
SINGLE, PAIRWISE = "single", "pairwise"  # Kinds of judging.
# (kind, with a reference?) -> name of the first turn's prompt. The second turn's adds MULTI_TURN.
NAMES = {
    (SINGLE, False): "single-v1",
    (SINGLE, True): "single-math-v1",
    (PAIRWISE, False): "pair-v2",
    (PAIRWISE, True): "pair-math-v1",
}
MULTI_TURN = "-multi-turn"
FORMATS = {SINGLE: "[[rating]]", PAIRWISE: "[[A]]"}  # Kind -> output format of its prompts.

# --- Prompts --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """One judge prompt."""

    name: str
    system: str
    template: str

    @property
    def sha256(self) -> str:
        """Digest of the texts: prompts of one name may differ from one judge file to the next."""
        return sha256(json.dumps([self.system, self.template]).encode()).hexdigest()

    def fill(self, **texts: str) -> str:
        """The template with these texts. UserError where it names one that is not among them."""
        try:
            return self.template.format(**texts)
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"judge prompt {self.name!r} cannot be filled in: {type(error).__name__} {error}"
            ) from error


def read_prompts(path: Path, kind: str) -> dict[str, Prompt]:
    """The four prompts of a kind, by name, from a file in FastChat's format.

    UserError where the file, a prompt or a field of one is missing or wrong.
    """
    if not path.is_file():
        raise UserError(
            f"no judge prompts at {path}; give a file in FastChat's format with --judge-file"
        )
    rows = {str(row.get("name")): row for _, row in read_rows(path)}
    firsts = [name for (of, _), name in NAMES.items() if of == kind]
    names = [first + turn for first in firsts for turn in ("", MULTI_TURN)]
    return {name: _prompt(name, rows.get(name), kind, path) for name in names}


def _prompt(name: str, row: dict | None, kind: str, path: Path) -> Prompt:
    """The prompt of a row. None stands for a row that is missing."""
    if row is None:
        raise UserError(f"{path} has no prompt {name!r}")
    fields = [row.get(field) for field in ("system_prompt", "prompt_template", "output_format")]
    if not all(isinstance(field, str) for field in fields):
        raise UserError(
            f"{path}: prompt {name!r} needs the texts system_prompt, prompt_template and "
            "output_format"
        )
    system, template, output_format = fields
    if output_format != FORMATS[kind]:
        raise UserError(
            f"{path}: prompt {name!r} has output format {output_format!r}; expected "
            f"{FORMATS[kind]!r}"
        )
    _check_template(template, f"{path}: prompt {name!r}")
    return Prompt(name, system, template)


def _check_template(template: str, where: str) -> None:
    """UserError where a template has anything but plain names of texts in braces.

    `str.format` would read attributes ({answer.__class__}), and pad to any length ({answer:>9999}).
    """
    try:
        for _, name, form, conversion in Formatter().parse(template):
            if form or conversion or not (name or "x").isidentifier():
                raise ValueError(f"{{{name}}} is not the plain name of a text")
    except ValueError as error:
        raise UserError(f"{where} cannot be filled in: {error}") from error


def may_be_of(template: str, user: str) -> bool:
    """Whether a user prompt has all fixed text of a template, in its order.

    >>> may_be_of("Grade {answer}, please", "Grade this, please"), may_be_of("Grade {answer}", "A?")
    (True, False)
    """
    texts = [""]  # Before, between and behind the fields.
    for text, field, _, _ in Formatter().parse(template.strip()):
        texts[-1] += text
        if field is not None:
            texts.append("")
    user = user.strip()
    end = 0
    for text in texts:
        found = user.find(text, end)
        if found < 0:
            return False
        end = found + len(text)
    return user.startswith(texts[0]) and user.endswith(texts[-1])


# --- Matches --------------------------------------------------------------------------------------


def needs_reference(question: Question) -> bool:
    """Whether a question is judged against a reference answer."""
    return normalised(question.category) in NEED_REFERENCE


def has_reference(question: Question, references: dict[QuestionId, Answer], turn: int = 1) -> bool:
    """Whether there are reference answers to a question's turns up to `turn`."""
    answer = references.get(question.question_id)
    choice = answer.choices[0] if answer is not None else None
    return (
        choice is not None
        and choice.answered(turn)
        and all(text.strip() for text in choice.turns[:turn])
    )


def turns_judged(question: Question) -> int:
    """How many turns of a question are judged: both of two, else the first, as in FastChat."""
    return 2 if len(question.turns) == 2 else 1


@dataclass(frozen=True)
class Match:
    """One judgment to be made, which is one row of a judgment file."""

    question_id: QuestionId
    turn: int  # 1 or 2.
    models: tuple[str, ...]  # One, or two.
    prompt: str  # Name of the prompt.
    system: str
    users: tuple[str, ...]  # The prompts: one, or two with the answers in either order.
    prompt_sha256: str = ""  # Digest of the system prompt and the template.
    # Texts of the prompts that are the same for all models: questions and reference answers.
    common: tuple[str, ...] = ()
    template: str = ""  # Of the user prompts.

    @property
    def key(self) -> tuple:
        """What is judged. The order of two models does not matter: both orders are asked."""
        return self.question_id, self.turn, frozenset(self.models)

    def row(self, judge: str, replies: Sequence[str], tstamp: float) -> dict:
        """The judgment in FastChat's format. replies: one for each of `users`."""
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


def make_matches(
    questions: Iterable[Question],
    answers: dict[str, dict[QuestionId, Answer]],
    contests: Iterable[tuple[str, ...]],
    prompts: dict[str, Prompt],
    references: dict[QuestionId, Answer] | None,
) -> list[Match]:
    """Every judgment that can be made, question by question.

    answers: model -> question_id -> answer. The first of several choices is judged, as in FastChat.
        Turns that a model did not answer are left out.
    contests: the models to be judged, singly or in pairs.
    references: reference answers by question_id. None: every question is judged without one.

    UserError where a question needs a reference that is not there.
    """
    contests = list(contests)
    made = []
    for question in questions:
        for models in contests:
            given = [answers[model].get(question.question_id) for model in models]
            if any(answer is None for answer in given):
                continue
            choices = [answer.choices[0] for answer in given]
            for turn in range(1, turns_judged(question) + 1):
                if not all(choice.answered(turn) for choice in choices):
                    break
                texts = [choice.turns for choice in choices]
                made.append(_match(question, turn, models, texts, prompts, references))
    return made


def _match(
    question: Question,
    turn: int,
    models: tuple[str, ...],
    answers: list[tuple[str, ...]],
    prompts: dict[str, Prompt],
    references: dict[QuestionId, Answer] | None,
) -> Match:
    """The judgment of one turn. answers: the texts of each model's turns.

    No prompt is given a text of a later turn.
    """
    with_reference = references is not None and needs_reference(question)
    kind = SINGLE if len(models) == 1 else PAIRWISE
    prompt = prompts[NAMES[kind, with_reference] + ("" if turn == 1 else MULTI_TURN)]
    # The templates of a first turn name question, answer, answer_a, ...; those of a second one
    # question_1, question_2, answer_1, answer_a_2, ...
    texts = {"question": question.turns[0]} | _numbered("question", question.turns[:turn])
    if with_reference:
        texts |= _reference(question, turn, references)

    def filled(labels: tuple[str, ...], given: Sequence[tuple[str, ...]]) -> str:
        shown = {}
        for label, turns in zip(labels, given, strict=True):
            shown |= {label: turns[0]} | _numbered(label, turns[:turn])
        return prompt.fill(**texts, **shown)

    if kind == SINGLE:
        users = (filled(("answer",), answers),)
    else:
        both = (answers, answers[::-1])
        users = tuple(filled(("answer_a", "answer_b"), order) for order in both)
    about = (question.question_id, turn, models, prompt.name)
    common = tuple(text for name, text in texts.items() if f"{{{name}}}" in prompt.template)
    return Match(*about, prompt.system, users, prompt.sha256, common, prompt.template)


def _reference(
    question: Question, turn: int, references: dict[QuestionId, Answer]
) -> dict[str, str]:
    """The reference answers to the turns up to `turn`, by their names in templates.

    UserError where one of them is missing, empty or recorded as an error.
    """
    if not has_reference(question, references, turn):
        raise UserError(
            f"question {question.question_id} ({question.category}) is judged against a reference "
            f"answer, but the reference file has none to its turn {turn}; add it, or judge without "
            "references by --no-references"
        )
    choice = references[question.question_id].choices[0]
    return _numbered("ref_answer", choice.turns[:turn])


def _numbered(label: str, texts: Sequence[str]) -> dict[str, str]:
    """Texts by numbered names.

    >>> _numbered("answer", ["yes", "no"])
    {'answer_1': 'yes', 'answer_2': 'no'}
    """
    return {f"{label}_{number}": text for number, text in enumerate(texts, start=1)}
