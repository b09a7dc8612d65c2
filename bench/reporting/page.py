"""report.html: one file that holds a whole comparison and opens without a network.

It shows the headline, the figures, the conditions of each run, and every answer with the steps that
committed it. Its Content-Security-Policy allows only the page's own script, and no fetching. The
texts of models, questions and names are inserted as plain text, never as HTML.
"""

import base64
import hashlib
import mimetypes
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.common.files import write_atomically
from bench.reporting.browser_data import Asked, browser_data
from bench.reporting.figures import Figure
from bench.reporting.tables import Table
from bench.store.question_id import QuestionId
from bench.store.run_record import Run
from bench.store.trees import AnswerTrees
from bench.store.turn import Key, Turn

MOST_BYTES = 29_000_000  # Size of the page.
DATA_HERE = "<answers>"  # Where the data goes. In any other text "<" is escaped.
ASSETS = files(__package__) / "page_assets"
UNKNOWN = "unknown"
DEMO = "demo"  # The model, as a run names it.
DEMO_ANSWERS = (
    "The demo model is a toy: its answers are nonsense, and only the decoding is real. A small "
    "real model: --model smollm2"
)


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    title: str
    tables: Sequence[Table]  # The headline first.
    figures: Sequence[Figure]
    conditions: Mapping[str, Mapping[str, str]]  # Name of a run -> its conditions, by name.
    # Decoder -> its baseline, in the order shown.
    baselines: Mapping[str, str | None]
    turns: Sequence[Turn]  # Failed ones included.
    # Decoder -> question_id -> what its source asks under this id.
    questions: Mapping[str, Mapping[QuestionId, Asked]]
    trees: Mapping[Key, AnswerTrees]
    verdicts: Sequence[str] = ()  # Sentences on which decoder leads.
    warnings: Sequence[str] = ()
    remark: str = ""  # On the answers, shown above them.


def write_page(path: Path, page: Page) -> None:
    """Write report.html. OSError where that fails."""
    empty = _render(page, page.warnings)
    data, more_warnings = browser_data(
        page.turns, page.baselines, page.questions, page.trees, MOST_BYTES - len(empty)
    )
    html = _render(page, [*page.warnings, *more_warnings])
    before, _, after = html.partition(DATA_HERE.encode())
    write_atomically(path, before + data + after)


def _render(page: Page, warnings: Sequence[str]) -> bytes:
    """The page with DATA_HERE in place of the data of its answers."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("page.html.jinja"))
    script = _asset("page.js")
    used = [table.used_cells() for table in page.tables]
    cells = [[list(table.columns), *table.to_numpy().tolist()] for table in used]
    html = template.render(
        page=page,
        tables=list(zip(page.tables, cells, strict=True)),
        figures=[(figure, data_uri(figure.path)) for figure in page.figures],
        warnings=warnings,
        style=Markup(_asset("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=Markup(DATA_HERE),
    )
    return html.encode(errors="replace")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def data_uri(path: Path) -> str:
    """A file's content as a URI."""
    content = base64.b64encode(path.read_bytes()).decode()
    return f"data:{mimetypes.guess_type(path.name)[0]};base64,{content}"


def remark_on(runs: Iterable[Run]) -> str:
    """What a reader of these runs' answers must know. Empty: nothing."""
    return DEMO_ANSWERS if any(run.config.model == DEMO for run in runs) else ""


def conditions_of(run: Run) -> dict[str, str]:
    """The conditions of a run by name, for a reader who wants to judge or repeat it."""
    config, environment = run.config, run.environment
    is_cpu = environment.device_type == "cpu"
    threads = f", {_known(environment.threads)} threads" if is_cpu else ""
    versions = [
        f"{name} {_known(getattr(environment, name))}"
        for name in ("python", "torch", "transformers")
    ]
    has_changes = run.git is not None and run.git.dirty is True
    sessions = f", in {len(run.sessions)} sessions" if len(run.sessions) > 1 else ""
    temperature = "by category" if config.temperature is None else config.temperature
    return {
        "command": UNKNOWN if run.command is None else shlex.join(run.command),
        "model": f"{run.model.name} ({_known(config.model)}), {_known(run.model.heads)} heads",
        "questions": (
            f"{run.questions.name}, {_known(run.questions.count)} "
            f"(sha256 {_known(run.questions.sha256)[:12]})"
        ),
        "decoding": (
            f"temperature {temperature}, acceptance {_known(config.acceptance)}, "
            f"at most {_known(config.max_new_tokens)} tokens a turn, "
            f"{config.num_choices} choice(s) a question, seed {_known(config.seed)}"
        ),
        "device": f"{_known(environment.device)}, {_known(environment.dtype)}{threads}",
        "software": f"{', '.join(versions)}, {_known(environment.platform)}",
        "code": (
            f"commit {_known(run.git.commit if run.git else None)}"
            + (", with changes" if has_changes else "")
        ),
        "time": f"{run.start} to {run.end or 'not finished'}{sessions}",
    }


def _known(value: object) -> str:
    return UNKNOWN if value is None else str(value)
