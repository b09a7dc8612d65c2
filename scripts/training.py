"""What the training scripts share: reading chat JSONL, the learning rate, checkpoints."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import torch


def read_chats(path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(source, turns) of every line of a chat JSONL file, plain or gzipped; SystemExit names the line that is not one."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                turns = row["turns"]
                assert all(turn["role"] in ("user", "assistant") and isinstance(turn["content"], str) for turn in turns)
            except (ValueError, KeyError, TypeError, AssertionError):
                raise SystemExit(
                    f'error: {path}, line {number}: expected {{"turns": [{{"role": "user" | "assistant", "content": str}}]}}'
                ) from None
            yield row.get("source", ""), turns


def learning_rate(seen: float, total: float, warmup: float, decay: float = 0.25) -> float:
    """Factor in [0, 1] by tokens seen: linear warm-up, constant, linear decay over the last quarter."""
    return min(1.0, (seen + 1) / warmup, max(0.0, (total - seen) / (decay * total)))


def save_atomically(state: dict, path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the last one or this one, never half of one."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
