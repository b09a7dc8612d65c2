"""Corpora: conversations, and their answers as token ids.

A row of a corpus is one conversation, in one of these layouts:

    {"source": str, "turns": [{"role": "user" | "assistant", "content": str}, ...]}
    {"conversations": [{"from": "human" | "gpt", "value": str}, ...]}   ShareGPT
    {"messages": [{"role": ..., "content": ...}, ...]}
    [{"role": ..., "content": ...}, ...]

A file has a row a line, or is one JSON array of rows. "source" may be left out. A system message at
the beginning is left out.
"""

from collections.abc import Iterator
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import read_lines, shown
from bench.common.strict_json import parse_json
from bench.inputs.chat import Chat
from training.json_array import begins_array, read_array

Example = tuple[list[int], int]  # Token ids of a prompt and its answer; where the answer begins.
LISTS = ("turns", "conversations", "messages", "conversation")
# Role as a corpus names it -> ours.
ROLES = {
    "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
    "chatgpt": "assistant", "bing": "assistant", "bard": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip


def read_chats(path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(source, turns) of every conversation of a corpus, plain or gzipped.

    UserError names the row that is no conversation.
    """
    for where, row in _rows(path):
        source = row.get("source") if isinstance(row, dict) else None
        source = "" if source is None else source
        try:
            if not isinstance(source, str):
                raise ValueError("its source is no text")
            turns = _turns(row)
        except ValueError as error:
            raise UserError(
                f"{where}: {error}; expected "
                '{"turns": [{"role": "user" | "assistant", "content": str}]}, or '
                '{"conversations": [{"from": "human" | "gpt", "value": str}]}'
            ) from error
        yield source, turns


def _rows(path: Path) -> Iterator[tuple[str, object]]:
    """(place as a message says it, value) of every row of a corpus."""
    if begins_array(path):
        first = next(read_array(path), ("", {}))[1]
        try:
            _turn(first)
        except ValueError:  # The first element is no message, so the elements are conversations.
            yield from read_array(path)
            return
    for number, _, line in read_lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            yield where, parse_json(line)
        except ValueError as error:
            raise UserError(f"{where} is not JSON: {error}") from error


def _turns(row: object) -> list[dict[str, str]]:
    """The turns of a row, with our names for roles. ValueError says why it is no conversation."""
    messages = row
    if isinstance(row, dict):
        # Exports of tables have null where a row has no such field.
        messages = next((row[name] for name in LISTS if row.get(name) is not None), None)
    if not isinstance(messages, list):
        raise ValueError("it has no list of turns")
    turns = []
    for number, message in enumerate(messages, 1):
        try:
            turn = _turn(message)
            if turn["role"] == "system" and number > 1:
                raise ValueError("its role is system, which only the first may have")
        except ValueError as error:
            raise ValueError(f"turn {number}: {error}") from None
        turns.append(turn)
    if turns and turns[0]["role"] == "system":
        del turns[0]
        if not turns:
            raise ValueError("a system message is all it has")
    return turns


def _turn(message: object) -> dict[str, str]:
    """A message as one of ours. ValueError says why it is none."""
    if not isinstance(message, dict):
        raise ValueError("it is no object")
    role = _either(message, "role", "from")
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"its role is {shown(role)}, not one of {', '.join(ROLES)}")
    content = _either(message, "content", "value")
    if not isinstance(content, str):
        raise ValueError(f"its content is {shown(content)}, not a text")
    return {"role": ROLES[role], "content": content}


def _either(message: dict, name: str, other: str) -> object:
    """The value of a field, or of another one where that is absent or null."""
    value = message.get(name)
    return message.get(other) if value is None else value


def corpus_examples(path: Path, chat: Chat) -> Iterator[Example]:
    """Every answer of a corpus after its prompt, as `numbered_examples`."""
    return (example for _, example in numbered_examples(path, chat))


def numbered_examples(path: Path, chat: Chat) -> Iterator[tuple[int, Example]]:
    """Every answer after its prompt, with the number of its conversation, from 0 on.

    The end token is appended where there is one. An answer before the first question is left out. A
    conversation is read up to the first turn that is out of order.
    """
    end_id = chat.tokenizer.eos_token_id if chat.end_id is None else chat.end_id
    end = [] if end_id is None else [end_id]
    for number, (_, turns) in enumerate(read_chats(path)):
        asked: list[str] = []
        answered: list[str] = []
        for turn in turns:
            is_question = turn["role"] == "user"
            if not asked and not is_question:
                continue
            if is_question != (len(asked) == len(answered)):
                break
            if is_question:
                asked.append(turn["content"])
                continue
            prompt = chat.prompt(asked, answered)
            ids = chat.tokenizer(turn["content"], add_special_tokens=False).input_ids
            if answer := ids + end:
                yield number, ([*prompt, *answer], len(prompt))
            answered.append(turn["content"])


def read_examples(path: Path, vocab: int) -> Iterator[Example]:
    """The examples of a file of own answers, plain or gzipped: [token ids, start] a line.

    vocab: tokens of the model. UserError names the line that is no example.
    """
    for number, _, line in read_lines(path):
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        try:
            _check_example(row, vocab)
        except ValueError as error:
            raise UserError(
                f"{path}, line {number}: {error}; expected [token ids below {vocab}, where the "
                "answer begins]"
            ) from error
        yield row[0], row[1]


def _check_example(row: object, vocab: int) -> None:
    """ValueError says why a row is no example."""
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], list):
        raise ValueError(f"it is {shown(row)}")
    ids, start = row
    for token in ids:
        if type(token) is not int or not 0 <= token < vocab:
            raise ValueError(f"{shown(token)} is no token of this model")
    if type(start) is not int or not 0 < start < len(ids):
        raise ValueError(f"the answer cannot begin at {shown(start)} of {len(ids)} tokens")


def no_room(path: Path, new_tokens: int) -> UserError:
    """The error where no prompt of a corpus leaves room for an answer."""
    return UserError(
        f"no prompt of {path} leaves room for --new-tokens {new_tokens} in the model's context"
    )
