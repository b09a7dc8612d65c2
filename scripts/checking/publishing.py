"""What is published of a run."""

import gzip
import json
import re
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import read_lines, write_atomically
from bench.inputs.questions import SAMPLE, load_questions
from bench.store.run_record import RUN_FILE, Run, read_run
from bench.store.turn import PUBLISHED_FILE, TURNS_FILE, iter_turns

TEXTS = "question_texts"  # The field of run.json.
# The folders of an absolute path, which begins a text or follows one of these characters.
FOLDERS = re.compile(r"""(?<![^\s=,:'"(])/(?:[^/\s=,:'"]+/)*(?=[^/\s=,:'"])""")


def publish(run_folder: Path, folder: Path) -> None:
    """Write the rows and the run.json of a run into a folder.

    UserError where the run is not finished, a turn of it failed, its code is in no commit, or a
    decoder's label names a folder. Failures that a later row replaces are left out.
    """
    run = read_run(run_folder)
    if run.end is None:
        raise UserError(f"{run_folder} is not finished; the command that began it goes on with it")
    file = run_folder / TURNS_FILE
    # By the offsets of their rows.
    finished = {at: turn.key for at, turn in iter_turns(file, lambda _: None) if not turn.failed}
    if len(set(finished.values())) < len(run.config.labels) * run.turns_each:
        raise UserError(
            f"{run_folder} has failed or missing turns; the command that began it goes on with them"
        )
    for session in run.sessions:
        if session.git is None or session.git.commit is None or session.git.dirty:
            raise UserError(
                f"{run_folder} was made with code that is in no commit; commit, and run it again"
            )
    for label in run.config.labels:
        if FOLDERS.search(label):
            raise UserError(
                f"{run_folder} calls a decoder {label!r}, with the name of a folder; give it a "
                f"label (NAME={label}), and run it again"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / RUN_FILE, json.dumps(_public(run), indent=1) + "\n")
    rows = b"".join(line for _, at, line in read_lines(file) if at in finished)
    (folder / PUBLISHED_FILE).write_bytes(gzip.compress(rows, mtime=0))


def _public(run: Run) -> dict[str, object]:
    """The content of run.json without texts of others and without names of folders."""
    fields = {
        name: value if name == TEXTS else _without_folders(value)
        for name, value in run.as_json().items()
    }
    if run.questions.sha256 != load_questions(SAMPLE).sha256:  # They are not this project's.
        fields.pop(TEXTS, None)  # Older runs have none.
    return fields


def _without_folders(value: object) -> object:
    """The same with absolute paths, also those inside texts, cut to their last part."""
    if isinstance(value, dict):
        return {_without_folders(key): _without_folders(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_folders(member) for member in value]
    if isinstance(value, str):
        return Path(value).name if Path(value).is_absolute() else FOLDERS.sub("", value)
    return value
