"""Chat JSONL: conversations, and their answers as token ids.

A line of a corpus is one conversation:

    {"source": str, "turns": [{"role": "user" | "assistant", "content": str}, ...]}

"source" may be left out.
"""

from collections.abc import Iterator
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import parse_json, read_lines, read_rows
from bench.inputs.chat import Chat

Example = tuple[list[int], int]  # Token ids of a prompt and its answer; where the answer begins.
ROLES = ("user", "assistant")


def read_chats(path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(source, turns) of every line of a corpus, plain or gzipped.

    UserError names the line that is no conversation.
    """
    for number, row in read_rows(path):
        source, turns = row.get("source", ""), row.get("turns")
        has_turns = isinstance(turns, list) and all(map(_is_turn, turns))
        if not has_turns or not isinstance(source, str):
            raise UserError(
                f"{path}, line {number}: expected "
                '{"turns": [{"role": "user" | "assistant", "content": str}]}'
            )
        yield source, turns


def _is_turn(turn: object) -> bool:
    if not isinstance(turn, dict):
        return False
    return turn.get("role") in ROLES and isinstance(turn.get("content"), str)


def corpus_examples(path: Path, chat: Chat) -> Iterator[Example]:
    """Every assistant turn of a corpus as the continuation of its prompt."""
    end = chat.tokenizer.eos_token_id if chat.end_id is None else chat.end_id
    for _, turns in read_chats(path):
        asked = [turn["content"] for turn in turns if turn["role"] == "user"]
        answered = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        for number, answer in enumerate(answered[: len(asked)]):
            prompt = chat.prompt(asked[: number + 1], answered[:number])
            ids = chat.tokenizer(answer, add_special_tokens=False).input_ids
            yield [*prompt, *ids, end], len(prompt)


def read_examples(path: Path, vocab: int) -> Iterator[Example]:
    """The examples of a file of own answers, plain or gzipped: [token ids, start] a line.

    vocab: tokens of the model. UserError names the line that is no example.
    """
    for number, _, line in read_lines(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        if not _is_example(row, vocab):
            raise UserError(
                f"{path}, line {number}: expected [token ids below {vocab}, where the answer "
                "begins]"
            )
        yield row[0], row[1]


def _is_example(row: object, vocab: int) -> bool:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], list):
        return False
    ids, start = row
    are_tokens = all(type(token) is int and 0 <= token < vocab for token in ids)
    return are_tokens and type(start) is int and 0 < start < len(ids)


def no_room(path: Path, new_tokens: int) -> UserError:
    """The error where no prompt of a corpus leaves room for an answer."""
    return UserError(
        f"no prompt of {path} leaves room for --new-tokens {new_tokens} in the model's context"
    )
