"""Checks that the counts of a source fit together. What cannot be is left out, with a warning.

A turn whose counts are impossible is in no number. Accept lengths that do not add up to the tokens
are in no number; the tokens and steps beside them still are.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from bench.store.answer_files import Answer, Choice
from bench.store.question_id import QuestionId
from bench.store.turn import KEY, Turn

# A turn outside these limits gets a warning, as its token count hardly fits its text.
# UNSEEN_TOKENS allows for special tokens, which leave no characters in the text.
MOST_TOKENS_PER_BYTE, UNSEEN_TOKENS = 4, 64
MOST_CHARACTERS_PER_TOKEN = 200
SHORTEST_S = 1e-6  # No turn takes less. A file with such a time did not measure it.


def impossible(tokens: int, steps: int, text: str) -> str:
    """Why these counts cannot be those of one turn with this text. Empty: they can.

    One step more than tokens is allowed, as some programs count the prefill as a step.

    >>> impossible(0, 3, "Yes."), impossible(5, 3, "Yes.")
    ('0 tokens for a text', '')
    """
    if not tokens and text.strip():
        return "0 tokens for a text"
    if bool(tokens) != bool(steps):
        return f"{tokens} tokens in {steps} steps"
    return f"{steps} steps for {tokens} tokens" if steps > tokens + 1 else ""


def possible(
    frame: pd.DataFrame, turns: Iterable[Turn], name: str
) -> tuple[pd.DataFrame, list[str]]:
    """The rows of a frame whose counts are possible, and a warning where others are left out.

    turns: those of the frame, with their texts. name: of the source.
    """
    text_of = {turn.key: turn.text for turn in turns}
    keys = list(frame[list(KEY)].itertuples(index=False, name=None))
    reasons = [
        impossible(tokens, steps, text_of[key])
        for key, tokens, steps in zip(keys, frame.tokens, frame.steps, strict=True)
    ]
    wrong = [(key, reason) for key, reason in zip(keys, reasons, strict=True) if reason]
    if not wrong:
        return frame, []
    (question_id, decoder, _, turn), reason = wrong[0]
    warning = (
        f"{name}: {len(wrong)} of {len(frame)} turns have impossible counts, first {decoder}, "
        f"question {question_id}, turn {turn}: {reason}; they are in no number"
    )
    return frame[[not reason for reason in reasons]], [warning]


def doubtful(frame: pd.DataFrame, turns: Iterable[Turn], name: str) -> list[str]:
    """A warning where the tokens of turns hardly fit their texts. They stay in all numbers.

    frame, turns, name: as in `possible`.
    """
    text_of = {turn.key: turn.text for turn in turns}
    keys = list(frame[list(KEY)].itertuples(index=False, name=None))
    odd = [
        (key, tokens)
        for key, tokens in zip(keys, frame.tokens, strict=True)
        if tokens > MOST_TOKENS_PER_BYTE * len(text_of[key].encode()) + UNSEEN_TOKENS
        or len(text_of[key]) > MOST_CHARACTERS_PER_TOKEN * tokens
    ]
    if not odd:
        return []
    (question_id, _, _, turn), tokens = odd[0]
    return [
        f"{name}: the tokens of {len(odd)} turns hardly fit their texts, first question "
        f"{question_id}, turn {turn}: {tokens} tokens for {len(text_of[odd[0][0]])} characters; "
        "do they count padding, the prompt or other turns?"
    ]


def with_known_times(answers: Iterable[Answer], name: str) -> tuple[list[Answer], list[str]]:
    """The same answers with NaN for times below SHORTEST_S, and a warning where there are some."""
    known, zero = [], []
    for answer in answers:
        choices = []
        for choice in answer.choices:
            times = choice.wall_s
            if times is not None and any(
                time < SHORTEST_S and choice.answered(turn)
                for turn, time in enumerate(times, start=1)
            ):
                zero.append(answer.question_id)
                choice = replace(choice, wall_s=tuple(_known(time) for time in times))
            choices.append(choice)
        known.append(replace(answer, choices=tuple(choices)))
    if not zero:
        return known, []
    return known, [
        f"{name}: {len(zero)} answers have turns of less than a microsecond, first question "
        f"{zero[0]}; their times are taken to be unknown"
    ]


def _known(time: float) -> float:
    """A turn's seconds. NaN: too short to be true."""
    return math.nan if time < SHORTEST_S else time


def with_fitting_lengths(answers: Iterable[Answer], name: str) -> tuple[list[Answer], list[str]]:
    """The same answers without accept lengths that do not fit, and a warning where there are some.

    Lengths are one flat list for all turns of a choice, so a choice keeps all of them or none.
    """
    kept, wrong = [], []
    for answer in answers:
        choices = []
        for choice in answer.choices:
            misfit = _misfit(choice)
            if misfit:
                wrong.append((answer.question_id, misfit))
                choice = replace(choice, accept_lengths=None)
            choices.append(choice)
        kept.append(replace(answer, choices=tuple(choices)))
    if not wrong:
        return kept, []
    question_id, misfit = wrong[0]
    warning = (
        f"{name}: the accept lengths of {len(wrong)} answers do not fit their counts, first "
        f"question {question_id}, {misfit}; these lengths are left out, and tokens per inference "
        "is new tokens / steps"
    )
    return kept, [warning]


def _misfit(choice: Choice) -> str:
    """How the accept lengths of a choice contradict its tokens. Empty: they do not.

    Only turns that are answered count. A last step may hold more than was kept of it, where the
    answer was cut at its end.
    """
    if choice.lengths_unread:
        return "with another number of them than of steps, or some that are not whole"
    if choice.accept_lengths is None or choice.tokens is None:
        return ""
    for turn, (lengths, tokens) in enumerate(
        zip(choice.accept_lengths, choice.tokens, strict=True), start=1
    ):
        if not choice.answered(turn):
            break
        if any(length < 1 for length in lengths):
            return f"turn {turn}: a step that committed {min(lengths)} tokens"
        beyond = sum(lengths) - tokens
        if beyond < 0 or beyond >= max(1, lengths[-1] if lengths else 1):
            return f"turn {turn}: they add up to {sum(lengths)}, and its tokens are {tokens}"
    return ""


def missing_turns(
    answers: Sequence[Answer], asked: Mapping[QuestionId, int], name: str
) -> list[str]:
    """A warning where answers have fewer turns than their questions ask. asked: by question_id."""
    short = [
        (answer.question_id, len(choice.turns) + 1)
        for answer in answers
        for choice in answer.choices
        if len(choice.turns) < asked[answer.question_id]
    ]
    if not short:
        return []
    question_id, turn = short[0]
    return [
        f"{name}: {len(short)} answers lack a turn, first question {question_id}, turn {turn}; "
        "what is missing is in no number"
    ]


def without_counts(answers: Sequence[Answer], name: str) -> list[str]:
    """A warning of answers without counts of tokens and steps, where others have them."""
    answered = [
        (answer.question_id, choice)
        for answer in answers
        for choice in answer.choices
        if choice.answered(1)
    ]
    unknown = [
        question_id
        for question_id, choice in answered
        if choice.tokens is None or choice.steps is None
    ]
    if not unknown:
        return []
    return [
        f"{name}: {len(unknown)} of {len(answered)} answers have no counts of tokens and steps, "
        f"first question {unknown[0]}; they are in no number"
    ]
