"""Feed hostile files to the readers: what comes back is a good value or a clear error, nothing else.

    pip install -e '.[fuzz]'
    python scripts/fuzz.py turns --seconds 240 --corpus fuzz/turns

    turns       turns.jsonl of a run                questions   a question set
    answers     an answer file, any dialect         judgments   a judge's file
    tree        a static tree's JSON                run         run.json

Guided by coverage (atheris), with a mutator that knows JSON: it puts odd values where a row has sound ones. It ends at the
first exception that is not the reader's documented one, prints it, and leaves the input in a file beside the corpus. The
corpus grows from slice to slice.
"""

import argparse
import inspect
import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import bench.common.files as files_
import bench.inputs.questions as questions_
import bench.reporting.sources as sources_
import bench.store.answer_files as answers_
import bench.store.records as records_
import decoders.conditional.calibration as calibration_
import decoders.draft_vocabulary as vocabulary_
import decoders.tree as tree_
import llm_judge.judgments as judgments_
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import json_line
from bench.inputs.questions import load_questions
from bench.metrics import frame, tokens_per_inference, tokens_per_second
from bench.report import answer_rows, model_id
from bench.reporting.sources import open_run
from bench.store.answer_files import frame as answer_frame
from bench.store.answer_files import read_answers
from bench.store.records import SCHEMA_VERSION, RunFolder, Turn, read_turns
from decoders.conditional.calibration import Calibration, read_calibration
from decoders.draft_vocabulary import read_vocabulary
from decoders.tree import Tree, read_tree
from llm_judge.judgments import read_judgments

TURN = Turn(
    1,
    "math",
    "greedy",
    0,
    1,
    0.7,
    5,
    3,
    [7, 8, 2],
    [1, 2],
    [1, 4],
    0.01,
    0.02,
    "eos",
    None,
    "two é 😀",
)
RUN = {
    "schema_version": SCHEMA_VERSION, "config": {"decoders": ["greedy"], "num_choices": 1, "seed": 0},
    "model": {"name": "tiny", "id": "demo", "identity": "a", "heads": 4}, "environment": {"threads": 2, "dtype": "float32"},
    "question_turns": {"1": 1}, "questions": {"name": "sample", "sha256": "0", "count": 1}, "sessions": [{}],
    "start": "2026-01-01T00:00:00+00:00", "start_unix": 1767225600.0, "end": None,
}  # fmt: skip
CHOICE = {
    "index": 0,
    "turns": ["a", "b"],
    "idxs": [3, 0],
    "new_tokens": [8, 1],
    "wall_time": [0.1, 0.2],
}
ANSWER = {"question_id": 81, "answer_id": "x", "model_id": "m", "choices": [CHOICE], "tstamp": 1.0}
SPEC_BENCH = ANSWER | {
    "question_id": 82,
    "choices": [CHOICE | {"decoding_steps": [4, 1], "accept_lengths": [2, 2, 2, 2, 1]}],
}
SINGLE = {"question_id": 81, "model": "m", "judge": ["gpt-4", "single-v1"], "user_prompt": "?", "judgment": "[[7]]", "score": 7,
          "turn": 1, "tstamp": 1.0}  # fmt: skip
PAIR = {"question_id": 81, "model_1": "m", "model_2": "n", "g1_winner": "tie", "g2_winner": "model_1", "judge": ["g", "p"],
        "g1_user_prompt": "?", "g1_judgment": "[[C]]", "g2_user_prompt": "!", "g2_judgment": "[[A]]", "turn": 2}  # fmt: skip
QUESTION = {
    "question_id": 81,
    "category": "math",
    "turns": ["1 + 1?", "And twice?"],
    "reference": ["2", ""],
}

# What a stranger's file may hold where a sound value stood; the last ones are not JSON that Python would write.
ODD = (
    "null", "true", "-1", "0", "1.5", "-0.0", "2147483648", "1e308", "1" + "0" * 400, '""', '"x"', '"\\ud800"', '"\\u0000"',
    '"<script>"', '"../../x"', '"1"', "[]", "{}", "[[]]", "[null]", '[""]', "[1,2]", "[[0],[0]]", '{"a":1}',
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 3000 + "]" * 3000, '{"a":' * 3000, "\\", "'", "\u2028",
)  # fmt: skip


def turns(file: Path) -> None:
    found, _ = read_turns(file)
    assert len({turn.key for turn in found}) == len(found)
    for turn in found:
        assert sum(turn.accept_lengths) == len(turn.token_ids)
        json_line(asdict(turn)).encode()  # resuming writes the rows again
    table = frame(found)
    tokens_per_inference(table), tokens_per_second(table)


def questions(file: Path) -> None:
    found = load_questions(str(file)).questions
    assert len({question.question_id for question in found}) == len(found) > 0
    for question in found:
        "".join((question.category, *question.turns, *question.reference)).encode()


def answers(file: Path) -> None:
    table = answer_frame(read_answers(file).values())
    float(table.tokens.sum()), float(table.steps.sum()), float(table.wall_s.sum())


def judgments(file: Path) -> None:
    for row in read_judgments(file):
        json_line(row).encode()  # and so does judging on


def tree(file: Path) -> None:
    try:
        paths = read_tree(file).paths
    except ValueError:  # what it documents
        return
    assert len(Tree.from_paths(paths)) == len(paths) + 1


def calibration(file: Path) -> None:
    with suppress(ValueError):  # what it documents
        read_calibration(file)


def vocabulary(file: Path) -> None:
    with suppress(ValueError):
        assert all(0 <= token < 10 for token in read_vocabulary(file, 10))


def run(file: Path) -> None:
    folder = file.parent / "run"
    folder.mkdir(exist_ok=True)
    file.replace(folder / "run.json")
    (folder / "turns.jsonl").write_text(json_line(asdict(TURN)))
    config = open_run(folder).record.run["config"]
    with RunFolder.open(folder, config) as opened:  # as who resumes it
        for decoder in opened.run["config"]["decoders"]:
            for row in answer_rows(
                opened.run, map(opened.turn, opened), decoder, model_id(opened.run, decoder)
            ):
                json_line(row).encode()


TARGETS: dict[str, tuple[Callable[[Path], None], list[dict | list]]] = {
    "turns": (
        turns,
        [asdict(TURN), asdict(TURN) | {"turn": 2, "finish_reason": "error", "error": "E"}],
    ),
    "questions": (questions, [QUESTION, QUESTION | {"question_id": 82}]),
    "answers": (answers, [ANSWER, SPEC_BENCH]),
    "judgments": (judgments, [SINGLE, PAIR]),
    "tree": (tree, [{"paths": [[0], [1], [0, 0]], "frequency": [0.5, 0.3, 0.2]}]),
    "calibration": (calibration, [asdict(Calibration())]),
    "vocabulary": (vocabulary, [{"tokens": [3, 1, 2]}]),
    "run": (run, [RUN]),
}


def seed_file(target: str) -> bytes:
    return "".join(json_line(row) for row in TARGETS[target][1]).encode()


def feed(target: str, data: bytes, folder: Path) -> None:
    """Let a target read `data` from a file. Returns where it is read or refused; raises what no reader should."""
    file = folder / "file"
    file.write_bytes(data)
    try:
        TARGETS[target][0](file)
    except UserError as error:
        text = str(error)
        assert text.strip() and "\n" not in text and len(text) < 2000, (
            f"not one clear line: {text[:300]!r}"
        )


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One or a few changes, most of them to a value somewhere inside a row."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = (_mutate_bytes if rng.random() < 0.2 else _mutate_row)(data, rng)
    return data


def _mutate_row(data: bytes, rng: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        row = json.loads(lines[at])
        places = list(_places(row))
    except (ValueError, RecursionError):
        places = []
    if not places:
        return _mutate_bytes(data, rng)
    where, key = rng.choice(places)
    mark = "\x07here"
    if rng.random() < 0.15:
        del where[key]
    elif isinstance(where, list) and rng.random() < 0.3:
        where.insert(key, where[key])
    else:
        where[key] = mark
    text = json.dumps(row, ensure_ascii=rng.random() < 0.5).replace(
        json.dumps(mark), rng.choice(ODD)
    )
    lines[at] = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        lines.insert(at, lines[at])
    return b"\n".join(lines)


def _places(value: object):
    """Every (container, key or index) below a value."""
    entries = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    inserted = rng.choice(
        (
            b"",
            data[start:end],
            bytes([rng.randrange(256)]),
            b"\n",
            b"\x00",
            b"\xff",
            rng.choice(ODD).encode(),
        )
    )
    return rng.choice(
        (data[:end], data[:start] + inserted + data[end:], data[:end] + inserted + data[end:])
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="0 (default): another one each time")
    parser.add_argument(
        "--corpus",
        type=Path,
        required=True,
        help="folder of inputs that reach something new; made if need be",
    )
    args = parser.parse_args()
    try:
        import atheris  # late: an extra
    except ImportError:
        raise UserError("the fuzzer atheris is not installed: pip install -e '.[fuzz]'") from None
    args.corpus.mkdir(parents=True, exist_ok=True)
    (args.corpus / "seed").write_bytes(seed_file(args.target))
    readers = (
        answers_,
        files_,
        questions_,
        records_,
        sources_,
        calibration_,
        tree_,
        vocabulary_,
        judgments_,
    )
    for module in readers:  # the rest of Python would drown them
        for value in list(vars(module).values()):
            if inspect.isfunction(value) and value.__module__ == module.__name__:
                atheris.instrument_func(value)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        return (atheris.Mutate(data, max_size) if rng.random() < 0.1 else mutate(data, rng))[
            :max_size
        ]

    with TemporaryDirectory() as folder:
        flags = [f"-max_total_time={args.seconds}", f"-seed={args.seed}", "-max_len=20000", "-timeout=20", "-rss_limit_mb=3000",
                 f"-artifact_prefix={args.corpus}-", "-print_final_stats=1"]  # fmt: skip
        atheris.Setup(
            [sys.argv[0], *flags, str(args.corpus)],
            lambda data: feed(args.target, data, Path(folder)),
            custom_mutator=mutator,
        )
        atheris.Fuzz()


if __name__ == "__main__":
    exit_cleanly(main)
