"""What the three gen_model_answer commands do: a run of one decoder, and its answer file."""

import shlex
import sys
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import (
    json_line,
    read_rows,
    shown,
    sole_writer,
    write_atomically,
    writing,
)
from bench.common.signals import Stopped
from bench.store.answer_files import answer_rows
from bench.store.question_id import QuestionId, check_question_id, in_order
from bench.store.run_record import RUN_FILE, read_run
from bench.store.turn import TURNS_FILE, read_turns
from llm_judge.answer_flags import parser, run_config, workers
from llm_judge.judge_folder import Bench

LOCK_WAIT_S = 60.0  # Commands for other ranges of questions may write at the same time.


def main(decoder: str, module: str, doc: str | None) -> int:
    """Answer a bench with one decoder. Returns the exit status, 1 where turns failed.

    module: the command's, as `python -m` takes it. doc: the command's docstring.
    """
    args = parser(decoder, module, doc).parse_args()
    bench = Bench.of(args.bench_name, args.data_dir)
    bench.questions()
    config = run_config(decoder, args, bench.question_source())
    # Imported late: torch takes seconds to load. A wrong flag is reported before.
    from bench.running.session import run
    from llm_judge.model_id import label_of, model_id

    name = model_id(args.model_id or label_of(args.model_path), config)
    file = args.answer_file or bench.answers / f"{name}.jsonl"
    part = ""
    if config.skip or config.limit:
        part = f"-questions-{config.skip}-{args.question_end or 'end'}"
    out = args.out or bench.folder / "model_run" / (name + part)
    _check_answer_file(file, name)
    command = ["python", "-m", module, *sys.argv[1:]]
    status = 0
    try:
        run(config, out, command, workers=workers(args))
    except KeyboardInterrupt as stop:
        again = shlex.join(command)
        print(f"\ninterrupted; every finished turn is kept. To go on: {again}", file=sys.stderr)
        status = stop.status if isinstance(stop, Stopped) else 130
        if not (out / RUN_FILE).exists():  # Interrupted before the first turn.
            return status
    failed = _write_answers(file, name, decoder, out)
    return status or int(failed > 0)


def _check_answer_file(file: Path, name: str) -> None:
    """UserError, before anything is generated, where the answers could not be written."""
    with writing(file, "give another --answer-file"):
        merge_answers(file, [], name)


def _write_answers(file: Path, name: str, decoder: str, out: Path) -> int:
    """Put the answers of a run's folder into the answer file. Returns how many turns failed."""
    turns, _ = read_turns(out / TURNS_FILE)
    rows = answer_rows(read_run(out), turns, decoder, name)
    merge_answers(file, rows, name)
    print(f"{file}: {len(rows)} answers")
    failed = sum(turn.failed for turn in turns)
    if failed:
        print(
            f"error: {failed} turns failed and have no answer; the same command tries them again",
            file=sys.stderr,
        )
    return failed


def merge_answers(path: Path, rows: list[dict], name: str) -> None:
    """Put the rows of model `name` into an answer file, ordered by question_id.

    A row replaces the one of the same question. UserError where the file holds another model's
    answers, or is being written by another process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(path, wait_s=LOCK_WAIT_S):
        merged: dict[QuestionId, dict] = {}
        for number, row in read_rows(path, nan=True) if path.exists() else ():
            where = f"{path}, line {number}"
            if row.get("model_id") != name:
                raise UserError(
                    f"{where} is an answer of {shown(row.get('model_id'))}, not {name!r}; give "
                    "another --answer-file"
                )
            try:
                merged[check_question_id(row.get("question_id"))] = row
            except ValueError as error:
                raise UserError(f"{where} is not an answer: {error}") from None
        merged |= {row["question_id"]: row for row in rows}
        if merged:
            write_atomically(
                path, "".join(json_line(merged[key]) for key in sorted(merged, key=in_order))
            )
