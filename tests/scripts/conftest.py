"""Chat corpora for the training scripts."""

import gzip
import json
from pathlib import Path

import pytest

from bench.inputs.questions import load_questions

ROLES = ("user", "assistant")


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Enough text for a tokenizer: the sample questions, with themselves as answers."""
    file = tmp_path / "chat.jsonl.gz"
    with gzip.open(file, "wt") as out:
        for question in 4 * load_questions("sample").questions:
            turns = [{"role": r, "content": t} for t in question.turns for r in ROLES]
            out.write(json.dumps({"source": "sample", "turns": turns}) + "\n")
    return file


@pytest.fixture
def short_corpus(tmp_path) -> Path:
    """Prompts that a context of 160 characters holds."""
    file = tmp_path / "short.jsonl"
    with file.open("w") as out:
        for letter in "abcdefgh":
            turns = [{"role": role, "content": letter * 5} for role in ROLES]
            out.write(json.dumps({"turns": turns}) + "\n")
    return file
