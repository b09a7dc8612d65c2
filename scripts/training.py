"""What the training scripts share: the model, reading chat JSONL, the learning rate, checkpoints."""

import argparse
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.common.errors import UserError
from bench.common.files import read_rows
from bench.inputs.loader import DTYPES, Loaded, check_model_name, load


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="demo, a folder, or a hub id")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:N, mps")
    parser.add_argument("--dtype", default="auto", choices=DTYPES)
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="execute Python files that the model brings along",
    )


def add_corpus_flags(parser: argparse.ArgumentParser, written: str) -> None:
    """Of what measures a model on held-out text, and writes a file of the name `written` about it."""
    parser.add_argument(
        "--corpus", type=Path, required=True, help="held-out chat JSONL (.gz allowed)"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help=f"folder that {written} is written to"
    )
    parser.add_argument(
        "--template", help="FastChat conversation name; default: the tokenizer's own chat template"
    )


def load_model(args: argparse.Namespace) -> Loaded:
    """The model that the flags name, where there is the corpus that they name; UserError says what does not fit."""
    check_model_name(args.model)
    if not args.corpus.is_file():
        raise UserError(f"--corpus {args.corpus} is not a file")
    return load(args.model, args.device, args.dtype, trust_remote_code=args.trust_remote_code)


def read_chats(path: Path) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(source, turns) of every line of a chat JSONL file, plain or gzipped; UserError names the line that is not one."""
    for number, row in read_rows(path):
        source, turns = row.get("source", ""), row.get("turns")
        if (
            not isinstance(turns, list)
            or not all(map(_is_turn, turns))
            or not isinstance(source, str)
        ):
            raise UserError(
                f'{path}, line {number}: expected {{"turns": [{{"role": "user" | "assistant", "content": str}}]}}'
            )
        yield source, turns


def _is_turn(turn: object) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("user", "assistant")
        and isinstance(turn.get("content"), str)
    )


def learning_rate(seen: float, total: float, warmup: float, decay: float = 0.25) -> float:
    """Factor in [0, 1] by tokens seen: linear warm-up, constant, linear decay over the last quarter."""
    return min(1.0, (seen + 1) / warmup, max(0.0, (total - seen) / (decay * total)))


def read_checkpoint(path: Path, device: torch.device | str) -> dict:
    """What `save_atomically` wrote; UserError where it is damaged. It cannot execute code."""
    try:
        return torch.load(path, weights_only=True, map_location=device)
    except (
        pickle.UnpicklingError,
        struct.error,
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise UserError(
            f"{path} is not a checkpoint that can be read; remove it to start again"
        ) from error


def save_atomically(state: dict, path: Path) -> None:
    """Write a checkpoint so that an interruption leaves the last one or this one, never half of one."""
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)
