"""The data of report.html's answer browser, as JSON that page.js reads.

decoders    [decoders] names
baselines   [decoders] index of the decoder that each is compared with, or null
trees       "question/decoder/choice/turn" -> {vocabulary, steps}
            vocabulary: index into tokens
            steps: [steps][parent, token, log_prob, kept]
            parent is 0 where the shape is that of the step before
tokens      [vocabularies] token id -> its text. Models of one vocabulary share an entry
questions   [questions]{id, version, category, turns, answers}; see `_answer` for an answer
            version: 1, or higher for further texts under the same id
"""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeVar

from bench.store.question_id import QuestionId, ranges
from bench.store.trees import AnswerTrees, StepTree
from bench.store.turn import Key, Turn, common_length

MOST_TREE_BYTES = 8_000_000  # For all trees of a page.
# What a source asks under a question_id: its texts, turn by turn. If they are not recorded, the
# digest of its question file, or "".
Asked = tuple[str, ...] | str
_Key = TypeVar("_Key")
LEAST_SHOWN = -99.0  # Log probability. page.js shows smaller ones like this one.


def browser_data(
    turns: Sequence[Turn],
    baselines: Mapping[str, str | None],
    questions: Mapping[str, Mapping[QuestionId, Asked]],
    trees: Mapping[Key, AnswerTrees],
    room: int,
) -> tuple[bytes, list[str]]:
    """The data, in `room` bytes or a little more, and warnings of what had to be left out.

    baselines: decoder -> its baseline. Turns of decoders that are not in it are left out.
    questions: decoder -> question_id -> what was asked. Answers to different texts stand apart.
    """
    warnings: list[str] = []
    index = {decoder: at for at, decoder in enumerate(baselines)}
    tree_room = min(MOST_TREE_BYTES, room // 3)
    shared = {
        "decoders": list(index),
        "baselines": [index.get(baseline) for baseline in baselines.values()],
        **_trees(trees, index, tree_room, warnings),
    }
    start = embedded(shared)
    entries = _questions(turns, baselines, questions)
    kept = _that_fit(entries, room - len(start))
    if len(kept) < len(entries):
        left_out = {question_id for question_id, _ in entries.keys() - set(kept)}
        warnings.append(
            f"To keep this page below 30 MB, the answers to {len(entries) - len(kept)} of "
            f"{len(entries)} questions are not in it; they are in the run's turns.jsonl, and in "
            f"all numbers and figures. Left out: {ranges(left_out)}."
        )
    asked = b",".join(entries[key] for key in kept)
    return start[:-1] + b',"questions":[' + asked + b"]}", warnings


def embedded(data: object) -> bytes:
    """JSON that may stand inside a script element, whatever text is in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace")


def _questions(
    turns: Sequence[Turn],
    baselines: Mapping[str, str | None],
    questions: Mapping[str, Mapping[QuestionId, Asked]],
) -> dict[tuple[QuestionId, int], bytes]:
    """(question_id, version) -> its texts and all answers to them, as JSON."""
    by_key = {turn.key: turn for turn in turns}
    index = {decoder: at for at, decoder in enumerate(baselines)}
    entries: dict[tuple[QuestionId, int], dict] = {}
    versions: dict[QuestionId, dict[Asked, int]] = {}
    for turn in turns:
        if turn.decoder not in index:
            continue
        asked = questions.get(turn.decoder, {}).get(turn.question_id, "")
        known = versions.setdefault(turn.question_id, {})
        version = known.setdefault(asked, len(known) + 1)
        key = turn.question_id, version
        if key not in entries:
            entries[key] = {
                "id": turn.question_id,
                "version": version,
                "category": turn.category,
                "turns": [] if isinstance(asked, str) else list(asked),
                "answers": [],
            }
        base = by_key.get((turn.question_id, baselines[turn.decoder], turn.choice, turn.turn))
        answer = _answer(turn, index[turn.decoder], base)
        entries[key]["answers"].append(answer)
    return {key: embedded(entry) for key, entry in entries.items()}


def _answer(turn: Turn, decoder: int, base: Turn | None) -> list:
    """A turn as a list. page.js knows the order. Field names would repeat in every turn."""
    # [steps] characters that each step added.
    added = [after - before for before, after in pairwise([0, *turn.step_ends])]
    nodes = turn.nodes[0] if len(set(turn.nodes)) == 1 else turn.nodes
    return [
        decoder,
        turn.choice,
        turn.turn,
        turn.error or turn.text,
        turn.accept_lengths,
        added,
        nodes,  # One number if all steps have the same, else a list.
        turn.finish_reason,
        turn.prompt_tokens,
        _seconds(turn.prefill_s),
        _seconds(turn.decode_s),
        first_difference(turn, base),
    ]


def _seconds(time: float) -> float | None:
    return round(time, 4) if math.isfinite(time) else None


def first_difference(turn: Turn, base: Turn | None) -> int | None:
    """Index of the first token that differs from the baseline's. -1 where none does.

    None where there is nothing to compare.
    """
    if base is None or turn.decoder == base.decoder or not (turn.token_ids and base.token_ids):
        return None
    if turn.token_ids == base.token_ids:
        return -1
    return common_length(turn.token_ids, base.token_ids)


def _trees(
    trees: Mapping[Key, AnswerTrees], index: Mapping[str, int], room: int, warnings: list[str]
) -> dict:
    """`trees` and `tokens` of the data, in `room` bytes. Adds a warning where some do not fit."""
    by_answer: dict[str, dict] = {}
    vocabularies: list[dict[int, str]] = []
    for answer in trees.values():
        if answer.decoder not in index:
            continue
        steps = _steps(answer.steps)
        room -= len(json.dumps(steps, separators=(",", ":")))
        room -= sum(len(text) + 10 for text in answer.text.values())
        if room < 0:
            warnings.append(
                f"Trees of {len(by_answer)} of {len(trees)} answers are in this page; the others "
                "are in the run's trees.jsonl."
            )
            break
        key = (answer.question_id, index[answer.decoder], answer.choice, answer.turn)
        place = _vocabulary(vocabularies, answer.text)
        by_answer["/".join(map(str, key))] = {"vocabulary": place, "steps": steps}
    return {"trees": by_answer, "tokens": vocabularies}


def _vocabulary(vocabularies: list[dict[int, str]], texts: Mapping[int, str]) -> int:
    """The index of the first vocabulary that has no other text for a token. Adds these texts to it.

    Two models have different texts for one token id.
    """
    for place, known in enumerate(vocabularies):
        if all(known.get(token, text) == text for token, text in texts.items()):
            known.update(texts)
            return place
    vocabularies.append(dict(texts))
    return len(vocabularies) - 1


def _steps(trees: Sequence[StepTree]) -> list[list]:
    """[steps][parent, token, log_prob, kept], with 0 for a parent array that repeats."""
    steps = []
    before: list[int] | None = None
    for tree in trees:
        log_prob = None
        if tree.log_prob is not None:
            log_prob = [max(LEAST_SHOWN, round(value, 2)) for value in tree.log_prob]
        parent = 0 if tree.parent == before else tree.parent
        steps.append([parent, tree.token, log_prob, tree.kept])
        before = tree.parent
    return steps


def _that_fit(entries: Mapping[_Key, bytes], room: int) -> list[_Key]:
    """The keys of all entries, or of as many as fit into `room` bytes.

    They are evenly spaced, as question sets are often ordered by category.
    """
    kept = list(entries)
    while kept and (total := sum(len(entries[key]) + 1 for key in kept)) > room:
        count = min(len(kept) - 1, int(len(kept) * max(room, 0) / total))
        kept = [kept[(2 * number + 1) * len(kept) // (2 * count)] for number in range(count)]
    return kept
