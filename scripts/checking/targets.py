"""The readers of files, each with a valid file.

A target reads a file and checks the result. It may raise nothing but a UserError.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import json_line
from bench.inputs.fitted import read_fitted
from bench.inputs.questions import load_questions
from bench.metrics.frames import answers_frame, frame
from bench.metrics.rates import tokens_per_inference, tokens_per_second
from bench.reporting.run_source import open_run
from bench.store.answer_files import answer_rows, model_id, read_answers
from bench.store.run_folder import RunFolder
from bench.store.run_record import RUN_FILE, SCHEMA_VERSION
from bench.store.turn import TURNS_FILE, Turn, read_turns
from decoders.conditional.calibration import Calibration
from decoders.draft_vocabulary import parse_vocabulary
from decoders.static.rank_tree import RankTree
from decoders.tree import Tree
from llm_judge.judgments import read_judgments

LONGEST_MESSAGE = 2000  # Characters.

# --- Sound rows -----------------------------------------------------------------------------------

TURN = Turn(
    question_id=1,
    category="math",
    decoder="greedy",
    choice=0,
    turn=1,
    temperature=0.7,
    seed=5,
    prompt_tokens=3,
    token_ids=[7, 8, 2],
    accept_lengths=[1, 2],
    nodes=[1, 4],
    prefill_s=0.01,
    decode_s=0.02,
    finish_reason="eos",
    error=None,
    text="two é 😀",
)
FAILED_TURN = asdict(TURN) | {"turn": 2, "finish_reason": "error", "error": "E", "text": ""}
FAILED_TURN |= {name: [] for name in ("token_ids", "accept_lengths", "nodes", "step_ends")}
RUN = {
    "schema_version": SCHEMA_VERSION,
    "config": {"decoders": ["greedy"], "num_choices": 1, "seed": 0},
    "model": {"name": "tiny", "id": "demo", "identity": "a", "heads": 4},
    "environment": {"threads": 2, "dtype": "float32"},
    "question_turns": {"1": 1},
    "questions": {"name": "sample", "sha256": "0", "count": 1},
    "sessions": [{}],
    "start": "2026-01-01T00:00:00+00:00",
    "start_unix": 1767225600.0,
    "end": None,
}
CHOICE = {
    "index": 0,
    "turns": ["a", "b"],
    "idxs": [3, 0],
    "new_tokens": [8, 1],
    "wall_time": [0.1, 0.2],
}
ANSWER = {"question_id": 81, "answer_id": "x", "model_id": "m", "choices": [CHOICE], "tstamp": 1.0}
SPEC_BENCH_CHOICE = CHOICE | {"decoding_steps": [4, 1], "accept_lengths": [2, 2, 2, 2, 1]}
SPEC_BENCH = ANSWER | {"question_id": 82, "choices": [SPEC_BENCH_CHOICE]}
SINGLE = {
    "question_id": 81,
    "model": "m",
    "judge": ["gpt-4", "single-v1"],
    "user_prompt": "?",
    "judgment": "[[7]]",
    "score": 7,
    "turn": 1,
    "tstamp": 1.0,
}
PAIR = {
    "question_id": 81,
    "model_1": "m",
    "model_2": "n",
    "g1_winner": "tie",
    "g2_winner": "model_1",
    "judge": ["g", "p"],
    "g1_user_prompt": "?",
    "g1_judgment": "[[C]]",
    "g2_user_prompt": "!",
    "g2_judgment": "[[A]]",
    "turn": 2,
}
QUESTION = {
    "question_id": 81,
    "category": "math",
    "turns": ["1 + 1?", "And twice?"],
    "reference": ["2", ""],
}
RANK_TREE = {"paths": [[0], [1], [0, 0]], "frequency": [0.5, 0.3, 0.2]}
VOCABULARY = {"tokens": [3, 1, 2]}

# --- Targets --------------------------------------------------------------------------------------


def turns(file: Path) -> None:
    found, _ = read_turns(file)
    assert len({turn.key for turn in found}) == len(found)
    for turn in found:
        assert sum(turn.accept_lengths) == len(turn.token_ids)
        json_line(asdict(turn)).encode()  # Resuming writes the rows again.
    rows = frame(found)
    tokens_per_inference(rows), tokens_per_second(rows)


def questions(file: Path) -> None:
    found = load_questions(str(file)).questions
    assert len({question.question_id for question in found}) == len(found) > 0
    for question in found:
        "".join((question.category, *question.turns, *question.reference)).encode()


def unheard(text: str) -> None:
    """Takes the warnings of a reader that leaves out bad lines."""
    assert "\n" not in text


def answers(file: Path) -> None:
    rows = answers_frame(read_answers(file, unheard).values())
    float(rows.tokens.sum()), float(rows.steps.sum()), float(rows.wall_s.sum())


def judgments(file: Path) -> None:
    for row in read_judgments(file, unheard):
        json_line(row).encode()


def fitted(file: Path, parse: Callable[[object], object]) -> object:
    """A fitted file's content. UserError where it is not what it must be, as commands say it."""
    try:
        return read_fitted(file, parse)
    except ValueError as error:
        raise UserError(str(error)) from error


def tree(file: Path) -> None:
    paths = fitted(file, RankTree.parse).paths
    assert len(Tree.from_paths(paths)) == len(paths) + 1


def calibration(file: Path) -> None:
    fitted(file, Calibration.parse)


def vocabulary(file: Path) -> None:
    assert min(fitted(file, parse_vocabulary)) >= 0


def run(file: Path) -> None:
    folder = file.parent / "run"
    folder.mkdir(exist_ok=True)
    file.replace(folder / RUN_FILE)
    (folder / TURNS_FILE).write_text(json_line(asdict(TURN)))
    config = open_run(folder).run.config.as_json()
    with RunFolder.open(folder, config) as opened:  # As a resumed run opens it.
        found = [opened.turn(key) for key in opened]
        for decoder in opened.run.config.labels:
            for row in answer_rows(opened.run, found, decoder, model_id(opened.run, decoder)):
                json_line(row).encode()


@dataclass(frozen=True)
class Target:
    """A reader, and the rows of a sound file."""

    read: Callable[[Path], None]
    rows: tuple[dict, ...]

    def sound_file(self) -> bytes:
        return "".join(map(json_line, self.rows)).encode()

    def feed(self, data: bytes, folder: Path) -> None:
        """Read `data` from a file in `folder`.

        Returns if the file is read, or refused by a clear error of one line. Raises anything else.
        """
        file = folder / "file"
        file.write_bytes(data)
        try:
            self.read(file)
        except UserError as error:
            text = str(error)
            is_clear = text.strip() and "\n" not in text and len(text) < LONGEST_MESSAGE
            assert is_clear, f"not one clear line: {text[:300]!r}"


TARGETS = {
    "turns": Target(turns, (asdict(TURN), FAILED_TURN)),
    "questions": Target(questions, (QUESTION, QUESTION | {"question_id": 82})),
    "answers": Target(answers, (ANSWER, SPEC_BENCH)),
    "judgments": Target(judgments, (SINGLE, PAIR)),
    "tree": Target(tree, (RANK_TREE,)),
    "calibration": Target(calibration, (asdict(Calibration()),)),
    "vocabulary": Target(vocabulary, (VOCABULARY,)),
    "run": Target(run, (RUN,)),
}
