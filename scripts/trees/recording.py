"""The trees of some answers of a finished run, recorded in its folder."""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from bench.common.errors import UserError, warn
from bench.common.files import writing
from bench.common.strangers import told
from bench.inputs.questions import Question
from bench.running.replay import reopen, replay
from bench.running.runner import Runner
from bench.store.question_id import QuestionId, parse_question_id, ranges
from bench.store.run_record import Run, read_run
from bench.store.trees import AnswerTrees, read_trees, write_trees
from bench.store.turn import TURNS_FILE, Key, Turn, read_turns


@dataclass(frozen=True)
class Recorded:
    """What was recorded."""

    answers: int  # Turns whose trees trees.jsonl now holds.
    different: list[Turn]  # Left out: they came out otherwise now, or their decoder failed.


def record_trees(
    folder: Path,
    questions: list[str],
    labels: list[str] | None,
    trust_remote_code: bool = False,
) -> Recorded:
    """Decode the answers to some questions again, and write their trees beside the run.

    questions: their ids, as text. labels: those of decoders. None: all decoders of the run that
    draft trees. trust_remote_code: see `reopen`. UserError says what the run does not have, or what
    has changed since.
    """
    try:
        question_ids = set(map(parse_question_id, questions))
    except ValueError as error:
        raise UserError(str(error)) from None
    run = read_run(folder)
    turns = {turn.key: turn for turn in read_turns(folder / TURNS_FILE)[0] if not turn.failed}
    _check(run, question_ids, labels)
    recorded = {
        key: trees
        for key, trees in read_trees(folder).items()
        if key in turns and trees.are_of(turns[key])
    }
    runner, known = reopen(run, trust_remote_code)
    if labels is None:
        labels = [label for label, decoder in runner.decoders.items() if decoder.drafts]
    wanted = [
        turn
        for turn in turns.values()
        if turn.question_id in question_ids and turn.decoder in labels
    ]
    if not wanted:
        raise UserError(
            "the run has no finished answer of these questions by a decoder that drafts trees"
        )
    different = []
    for turn in tqdm(wanted, unit="turn", desc="recording"):
        trees = _replayed(runner, known[turn.question_id], turn, turns)
        if trees is None:
            different.append(turn)
        else:
            recorded[turn.key] = trees
    with writing(folder):
        write_trees(folder, recorded.values())
    return Recorded(len(recorded), different)


def _check(run: Run, question_ids: set[QuestionId], labels: list[str] | None) -> None:
    """UserError where the run does not have one of these."""
    if strange := question_ids.difference(run.question_turns):
        raise UserError(
            f"the run does not ask question {ranges(strange)}; it asks {ranges(run.question_turns)}"
        )
    unknown = [label for label in labels or [] if label not in run.config.labels]
    if unknown:
        raise UserError(
            f"the run has no decoder {unknown[0]!r}; it has {', '.join(run.config.labels)}"
        )


def _replayed(
    runner: Runner, question: Question, turn: Turn, turns: dict[Key, Turn]
) -> AnswerTrees | None:
    """The trees of a turn. None: it did not come out the same, or its decoder failed.

    UserError where its decoder drafts no trees.
    """
    answered = [
        turns[turn.question_id, turn.decoder, turn.choice, number].text
        for number in range(1, turn.turn)
    ]
    try:
        return replay(runner, question, turn, answered)
    except ValueError as error:
        raise UserError(f"decoder {turn.decoder!r}: {error}; name others with --decoder") from error
    except Exception as error:  # noqa: BLE001 - of anyone's decoder; the others are recorded
        warn(f"{turn.decoder!r}: {told(error)}")
        return None
