"""report.html: one file that holds a whole comparison and opens without a network.

The headline, the figures, what the run was, and every answer with the steps that committed it. The page's own script is the
only one that its Content-Security-Policy lets run, nothing is fetched, and whatever a model, a question or a name says is
put in as text.
"""

import base64
import hashlib
import json
import math
import mimetypes
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.common.files import write_atomically
from bench.reporting.figures import Figure
from bench.reporting.tables import Table
from bench.store.records import Key, Turn
from bench.store.trees import AnswerTrees

MOST_BYTES = 29_000_000  # of the page
MOST_TREE_BYTES = 8_000_000  # of the recorded trees in it
DATA_HERE = "<answers>"  # in any other text "<" is escaped
ASSETS = files(__package__) / "page_assets"


@dataclass(frozen=True)
class Page:
    """What a page shows, from the most to the least important."""

    title: str
    tables: Sequence[Table]  # the first is the headline
    figures: Sequence[Figure]
    conditions: Mapping[str, Mapping[str, str]]  # of each run: what it was
    baselines: Mapping[
        str, str | None
    ]  # every decoder in the order shown, and the one that its answers are compared with
    turns: Sequence[Turn]  # failed ones too
    questions: Mapping[int, Sequence[str]]  # what the user says, turn by turn, where that is known
    trees: Mapping[Key, AnswerTrees]
    words: Sequence[str] = ()  # what the headline means, in sentences
    notes: Sequence[str] = ()  # what a reader must be warned of


def write_page(path: Path, page: Page) -> None:
    """Write report.html. OSError where it cannot be written."""
    script = (ASSETS / "page.js").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((ASSETS / "page.html.jinja").read_text(encoding="utf-8"))
    tables = [
        (table, [list(table.shown().columns), *table.shown().to_numpy().tolist()])
        for table in page.tables
    ]
    figures = [(figure, data_uri(figure.path)) for figure in page.figures]

    def frame(notes: Sequence[str]) -> bytes:
        return template.render(
            page=page, tables=tables, figures=figures, notes=notes,
            style=Markup((ASSETS / "page.css").read_text(encoding="utf-8")), script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(), data=Markup(DATA_HERE),
        ).encode(errors="replace")  # fmt: skip

    data, more_notes = answers_data(page, MOST_BYTES - len(frame(page.notes)))
    before, _, after = frame([*page.notes, *more_notes]).partition(DATA_HERE.encode())
    write_atomically(path, before + data + after)


def data_uri(path: Path) -> str:
    return f"data:{mimetypes.guess_type(path.name)[0]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def conditions_of(run: Mapping) -> dict[str, str]:
    """What a run was, from its run.json, for a reader who wants to judge or repeat it."""

    def at(*path: str) -> object:
        found = run
        for name in path:
            found = found.get(name) if isinstance(found, Mapping) else None
        return "unknown" if found is None else found

    config = {
        name: at("config", name) for name in ("acceptance", "max_new_tokens", "num_choices", "seed")
    }
    config["temperature"] = (
        "by category" if run["config"].get("temperature") is None else run["config"]["temperature"]
    )
    threads = (
        f", {at('environment', 'threads')} threads"
        if at("environment", "device_type") == "cpu"
        else ""
    )
    sittings = len(run["sessions"])
    return {
        "command": shlex.join(map(str, run["command"]))
        if isinstance(run.get("command"), list)
        else "unknown",
        "model": f"{at('model', 'name')} ({at('config', 'model')}), {at('model', 'heads')} heads",
        "questions": f"{at('questions', 'name')}, {at('questions', 'count')} (sha256 {str(at('questions', 'sha256'))[:12]})",
        "decoding": "temperature {temperature}, acceptance {acceptance}, at most {max_new_tokens} tokens a turn, "
        "{num_choices} choice(s) a question, seed {seed}".format(**config),
        "device": f"{at('environment', 'device')}, {at('environment', 'dtype')}{threads}",
        "software": ", ".join(
            f"{name} {at('environment', name)}" for name in ("python", "torch", "transformers")
        )
        + f", {at('environment', 'platform')}",
        "code": f"commit {at('git', 'commit')}"
        + (", with changes" if at("git", "dirty") is True else ""),
        "time": f"{run['start']} to {run.get('end') or 'not finished'}"
        + (f", in {sittings} sittings" if sittings > 1 else ""),
    }


def embedded(data: object) -> bytes:
    """JSON that may stand inside a script element, whatever text is in it."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode(errors="replace")


def answers_data(page: Page, room: int) -> tuple[bytes, list[str]]:
    """What the answer browser shows, as JSON of some `room` bytes at most, and notes that say what had to be left out.

    Lists, not objects with names, because there may be ten thousand of them: see `_answer` and page.js.
    """
    by_key = {turn.key: turn for turn in page.turns}
    place = {decoder: at for at, decoder in enumerate(page.baselines)}
    asked: dict[int, dict] = {}
    for turn in page.turns:
        if turn.decoder not in place:
            continue
        known = {
            "id": turn.question_id,
            "category": turn.category,
            "turns": list(page.questions.get(turn.question_id, ())),
        }
        entry = asked.setdefault(turn.question_id, known | {"answers": []})
        base = by_key.get((turn.question_id, page.baselines[turn.decoder], turn.choice, turn.turn))
        entry["answers"].append(_answer(turn, place[turn.decoder], base))
    notes: list[str] = []
    decoders = {
        "decoders": list(place),
        "baselines": [place.get(each) for each in page.baselines.values()],
    }
    rest = embedded(decoders | _trees(page.trees, place, min(MOST_TREE_BYTES, room // 3), notes))
    entries = {question_id: embedded(entry) for question_id, entry in asked.items()}
    kept = _that_fit(entries, room - len(rest))
    if len(kept) < len(asked):
        left_out = sorted(asked.keys() - set(kept))
        notes.append(
            f"To keep this page below 30 MB, the answers to {len(left_out)} of {len(asked)} questions are not in it; they are "
            f"in the run's turns.jsonl, and in all numbers and figures. Left out: {ranges(left_out)}."
        )
    return rest[:-1] + b',"questions":[' + b",".join(entries[each] for each in kept) + b"]}", notes


def _answer(turn: Turn, decoder: int, base: Turn | None) -> list:
    ends = [after - before for before, after in pairwise([0, *turn.step_ends])]
    nodes = turn.nodes[0] if len(set(turn.nodes)) == 1 else turn.nodes
    return [
        decoder, turn.choice, turn.turn, turn.error or turn.text, turn.accept_lengths, ends, nodes, turn.finish_reason,
        turn.prompt_tokens, _seconds(turn.prefill_s), _seconds(turn.decode_s), first_difference(turn, base),
    ]  # fmt: skip


def _seconds(time: float) -> float | None:
    return round(time, 4) if math.isfinite(time) else None


def first_difference(turn: Turn, base: Turn | None) -> int | None:
    """0-based place of the first token that is not the baseline's, -1 where all are; None where there is nothing to compare."""
    if base is None or turn.decoder == base.decoder or not (turn.token_ids and base.token_ids):
        return None
    if turn.token_ids == base.token_ids:
        return -1
    pairs = zip(turn.token_ids, base.token_ids, strict=False)
    return next(
        (at for at, (a, b) in enumerate(pairs) if a != b),
        min(len(turn.token_ids), len(base.token_ids)),
    )


def _trees(
    trees: Mapping[Key, AnswerTrees], place: Mapping[str, int], room: int, notes: list[str]
) -> dict:
    """Recorded trees by "question/decoder/choice/turn" with one table of token texts; a shape that repeats stands once."""
    shown: dict[str, list] = {}
    texts: dict[int, str] = {}
    for answer in trees.values():
        if answer.decoder not in place:
            continue
        steps, before = [], None
        for step in answer.steps:
            log_prob = (
                None
                if step.log_prob is None
                else [max(-99.0, round(each, 2)) for each in step.log_prob]
            )
            steps.append(
                [0 if step.parent == before else step.parent, step.token, log_prob, step.kept]
            )
            before = step.parent
        room -= len(json.dumps(steps, separators=(",", ":"))) + sum(
            len(text) + 10 for text in answer.text.values()
        )
        if room < 0:
            notes.append(
                f"Trees of {len(shown)} of {len(trees)} answers are in this page; the others are in the run's trees.jsonl."
            )
            break
        shown[f"{answer.question_id}/{place[answer.decoder]}/{answer.choice}/{answer.turn}"] = steps
        texts |= answer.text
    return {"trees": shown, "tokens": texts}


def _that_fit(entries: Mapping[int, bytes], room: int) -> list[int]:
    """The keys of all entries, or of as many as fit, evenly spaced: question sets are often ordered by category."""
    kept = list(entries)
    while kept and (total := sum(len(entries[each]) + 1 for each in kept)) > room:
        count = min(len(kept) - 1, int(len(kept) * max(room, 0) / total))
        kept = [kept[(2 * place + 1) * len(kept) // (2 * count)] for place in range(count)]
    return kept


def ranges(numbers: Sequence[int]) -> str:
    """Ascending integers, short.

    >>> ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    return ", ".join("-".join(map(str, each)) for each in runs)
