"""The source of a run's folder."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pandas as pd

from bench import metrics
from bench.common.errors import UserError
from bench.common.files import shown
from bench.reporting import counts
from bench.reporting.source import Source, shown_category, untimed
from bench.store.run_record import RUN_FILE, Run, read_run
from bench.store.trees import TREES_FILE, AnswerTrees, read_trees
from bench.store.turn import Key, Turn, read_turns, turn_in_words, turns_file
from decoders.options import written_options
from decoders.registry import BUILT_IN
from decoders.spec import AUTO, SHARED_OPTIONS, Spec

# Comparable runs may differ in these settings: what is compared, how much of it, and what
# `_conditions` or the environment record. All others must be equal, also those of later versions.
MAY_DIFFER = {
    "decoders",
    "model",
    "questions",
    "questions_sha256",
    "limit",
    "skip",
    "num_choices",
    "nodes",
    "topk",
    "depth",
    "tree",
    "trees",
    "plugins",
    "files",
    "device",
    "gpus",
    "max_gpu_memory",
    "dtype",
    "static_shapes",
    "compile",
    "trust_remote_code",
    "step_times",
}
# A digest of the times of --step-times. It decides drafts, and tokens only where these depend on
# what was drafted.
DRAFTS_ONLY = "step_times_sha256"


def open_run(folder: Path) -> Source:
    """The run of a folder. UserError where it is no run of this version, or no turn is finished."""
    run = read_run(folder)
    decoders = run.config.labels
    turns, warnings = _turns_of_run(folder, run)
    frame = metrics.frame(turns)
    frame["category"] = frame.category.map(shown_category)
    frame, impossible = counts.possible(frame, turns, str(folder))
    warnings += impossible
    if frame.empty:
        raise UserError(f"{folder} has no numbers to report: {impossible[0]}")
    wanted = run.turns_each
    finished = {decoder: int((frame.decoder == decoder).sum()) for decoder in decoders}
    warnings += _unfinished(folder, run, finished, wanted)
    warnings += untimed(frame, "decode_s")
    trees, misfits = _trees(folder, turns)
    warnings += misfits
    if has_moved := _has_moved(run):
        warnings.append(
            f"{folder}: its sessions, or their workers, were on different machines or versions; "
            "its times do not compare"
        )
    if (workers := run.environment.workers or 1) > 1 and run.environment.device_type == "cpu":
        warnings.append(
            f"{folder}: its {workers} workers ran on CPUs, and slow each other down where they "
            "share one; its times do not compare with another run's"
        )
    if is_mixed := len(run.codes) > 1:
        warnings.append(
            f"{folder}: its sessions ran different code ({', then '.join(run.codes)}), and its "
            "numbers pool both; none of its decoders is said to lead"
        )
    options = {
        label: _options(run, Spec.parse(text), frame)
        for label, text in zip(decoders, run.config.decoders, strict=True)
    }
    return Source(
        name=folder.resolve().name,
        frame=frame,
        labels=tuple(decoder for decoder in decoders if finished[decoder]),
        asked=run.question_turns,
        options=options,
        environment=run.environment.as_json(),
        conditions=_conditions(run),
        complete=all(count == wanted for count in finished.values()),
        is_mixed=is_mixed,
        has_moved=has_moved,
        warnings=tuple(warnings),
        folder=folder,
        run=run,
        turns=tuple(turns),
        trees=trees,
        differences=None if run.differences is None else tuple(run.differences),
        questions=run.question_texts,
    )


def _conditions(run: Run) -> dict[str, object]:
    """What decides the tokens of a run, whatever the decoder, as far as it is recorded.

    `model files` is a digest of the model's identity, `model contents` of its contents, `prompt` of
    a prompt that its template makes, and `tokenizer` of a text's tokens. Older runs do not record
    all of them.
    """
    set_to = run.config.as_json()
    made = {name: value for name, value in set_to.items() if name not in MAY_DIFFER}
    if run.config.is_lossless:
        made.pop(DRAFTS_ONLY, None)
    elif "step_times" in set_to:
        made.setdefault(DRAFTS_ONLY, None)  # Its drafts follow the clock.
    made["model"] = run.model.name
    recorded = {
        "model files": run.model.identity,
        "model contents": run.model.contents,
        "prompt": run.model.prompt,
        "tokenizer": run.model.tokenizer,
    }
    for name, digests in recorded.items():
        if digests is not None:
            made[name] = sha256(digests.encode()).hexdigest()[:12]
    if run.environment.dtype is not None:
        made["dtype"] = run.environment.dtype
    return made


def _turns_of_run(folder: Path, run: Run) -> tuple[list[Turn], list[str]]:
    """The turns that the run asks, question by question, and warnings.

    UserError where none of them is finished.
    """
    file = turns_file(folder)
    turns, warnings = read_turns(file, leave_out_damaged=True)
    # Workers finish in any order.
    order = {question_id: number for number, question_id in enumerate(run.question_turns)}
    turns.sort(key=lambda turn: (order.get(turn.question_id, 0), turn.sort_key))
    turns, problems = _asked(turns, run, file)
    if all(turn.failed for turn in turns):
        failures = [f"{len(turns)} failed, first: {turns[0].error}"] if turns else []
        reasons = [*failures, *problems, *warnings]
        raise UserError("; ".join([f"{folder} has no finished turn", *reasons[:1]]))
    return turns, [*warnings, *(f"{problem}; they are left out" for problem in problems)]


def _asked(turns: list[Turn], run: Run, file: Path) -> tuple[list[Turn], list[str]]:
    """Those of the turns that the run asks, and what is wrong with the others."""
    problems = []
    if others := sorted({turn.decoder for turn in turns} - set(run.config.labels)):
        more = f" and {len(others) - 1} more decoders" if len(others) > 1 else ""
        problems.append(
            f"{file} has turns of {shown(others[0])}{more}, which {RUN_FILE} does not name"
        )
        turns = [turn for turn in turns if turn.decoder in run.config.labels]
    if strange := run.not_asked(turn.key for turn in turns):
        problems.append(
            f"{file} has {len(strange)} turns that this run does not ask, first "
            f"{turn_in_words(strange[0])}"
        )
        strange_keys = set(strange)
        turns = [turn for turn in turns if turn.key not in strange_keys]
    wanted = run.config.temperature  # None: by category.
    if wanted is not None and (unlike := [each for each in turns if each.temperature != wanted]):
        problems.append(
            f"{file} has {len(unlike)} turns at another temperature than the run's {wanted}, first "
            f"{turn_in_words(unlike[0].key)} at {unlike[0].temperature}"
        )
        turns = [turn for turn in turns if turn.temperature == wanted]
    return turns, problems


def _trees(folder: Path, turns: list[Turn]) -> tuple[dict[Key, AnswerTrees], list[str]]:
    """The recorded trees that are those of the turns, and warnings."""
    try:
        trees = read_trees(folder)
    except UserError as error:
        return {}, [f"{error}; the report is without trees"]
    by_key = {turn.key: turn for turn in turns}
    fitting = {
        key: answer for key, answer in trees.items() if key in by_key and answer.are_of(by_key[key])
    }
    others = [key for key in trees if key not in fitting]
    if not others:
        return fitting, []
    return fitting, [
        f"{folder / TREES_FILE} has trees of {len(others)} answers that are not this run's, first "
        f"{turn_in_words(others[0])}; they are left out, and scripts/record_trees.py records them "
        "again"
    ]


def _unfinished(folder: Path, run: Run, finished: Mapping[str, int], wanted: int) -> list[str]:
    """Warnings of a run that has no end, and of decoders with fewer than `wanted` turns."""
    warnings = []
    if run.end is None:
        warnings.append(
            f"{folder}: this run is in progress, or was interrupted; what is shown may change"
        )
    for decoder, count in finished.items():
        if count < wanted:
            warnings.append(
                f"{folder}: {decoder}: {count} of {wanted} turns are finished; the others are in "
                "no number"
            )
    return warnings


def _has_moved(run: Run) -> bool:
    """Whether the sessions of a run, or their workers, were on different machines or versions."""
    found = []
    for session in run.sessions:
        if session.environment is not None:
            environment = session.environment.as_json()
            found.append(environment)
            # Workers of older versions record their device and threads alone.
            names = environment.keys() - {"workers"}
            workers = [worker for worker in session.workers or () if isinstance(worker, dict)]
            found += [
                environment | {name: worker[name] for name in names & worker.keys()}
                for worker in workers
            ]
    return any(environment != found[0] for environment in found)


def _options(run: Run, spec: Spec, frame: pd.DataFrame) -> dict:
    """`decoder` (its name), its options as far as they are known, `temperature` and `acceptance`.

    Where a decoder takes `nodes`, and none was given, it is the largest tree that was verified.
    """
    config = run.config
    given = {name: getattr(config, name) for name in SHARED_OPTIONS}
    if spec.name in BUILT_IN:
        known = {option.name for option in written_options(BUILT_IN[spec.name])}
        shared = {name: given[name] for name in given if name in known and given[name] is not None}
        takes_nodes = "nodes" in known
    else:
        # A plug-in may not be installed here, so its options are not known. Of the shared ones it
        # has nodes=auto where the run measured its drafting for it. A value that it may not have
        # would make it a point of a sweep.
        facts = [run.draft_times, *(each.get("draft_times") for each in run.workers or ())]
        is_auto = any(spec.label in (measured or {}) for measured in facts)
        shared = {"nodes": AUTO} if is_auto else {}
        takes_nodes = True
    options: dict[str, object] = {}
    if takes_nodes:
        trees = frame[frame.decoder == spec.label].nodes
        options["nodes"] = max((int(n.max(initial=0)) for n in trees), default=0)
    return {
        "decoder": spec.name,
        **options,
        **shared,
        **spec.options,
        "temperature": config.temperature,
        "acceptance": config.acceptance,
    }
