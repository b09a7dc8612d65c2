"""The files of a bench, in FastChat's layout.

    <data>/<bench>/question.jsonl
    <data>/<bench>/reference_answer/<judge>.jsonl
    <data>/<bench>/model_answer/<model id>.jsonl
    <data>/<bench>/model_judgment/<judge>_single.jsonl, <judge>_pair.jsonl

<data> is --data-dir. Its default is `llm_judge/data` if the current folder holds an llm_judge, else
`data`. So commands find the same files from a checkout's root (`python -m llm_judge...`) and from
its llm_judge/.

A bench is the shipped `sample`, a published set, or any folder in this layout that has a
question.jsonl. Questions and references of the first two are copied into the folder, where
FastChat's tools look for them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import safe_name, write_atomically, writing
from bench.inputs.published_sets import PROMPTS, QUESTIONS, REFERENCE, SETS, fetched
from bench.inputs.questions import (
    SAMPLE,
    SAMPLE_FOLDER,
    QuestionSet,
    load_questions,
    question_file,
)
from bench.store.answer_files import Answer, read_answers
from bench.store.question_id import QuestionId

OWN_PROMPTS = Path(__file__).parent / "data" / "judge_prompts.jsonl"
_SAMPLE_REFERENCE = "reference_answer/reference.jsonl"


@dataclass(frozen=True)
class Bench:
    """One bench's folder."""

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, data: Path | None) -> "Bench":
        """The bench of this name. UserError where the text cannot be a name.

        data: the folder of all benches. None: the default, see above.
        """
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(f"--bench-name is {name!r}; expected the plain name of a question set")
        return cls(name, (data or _default_data()) / name)

    @property
    def question_file(self) -> Path:
        return self.folder / QUESTIONS

    @property
    def answers(self) -> Path:
        """The folder of the answer files."""
        return self.folder / "model_answer"

    @property
    def references(self) -> Path:
        """The folder of the reference answers."""
        return self.folder / "reference_answer"

    def judgments(self, judge: str, is_single: bool) -> Path:
        """The file of a judge's grades (is_single), or of its comparisons of pairs."""
        kind = "single" if is_single else "pair"
        return self.folder / "model_judgment" / f"{safe_name(judge)}_{kind}.jsonl"

    def questions(self) -> QuestionSet:
        """The questions. The files of a known set are first copied into the folder.

        UserError where there are none.
        """
        if not self.question_file.is_file():
            self._copy_known_files()
        return load_questions(str(self.question_file))

    def questions_here(self) -> QuestionSet | None:
        """The questions, if they are on this machine, else None. Nothing is downloaded."""
        name = self.question_set_here()
        return None if name is None else load_questions(name)

    def question_set_here(self) -> str | None:
        """The file or the name of the questions, if they are on this machine, else None."""
        if self.question_file.is_file():
            return str(self.question_file)
        is_fetched = self.name in SETS and fetched(self.name, QUESTIONS, download=False) is not None
        return self.name if self.name == SAMPLE or is_fetched else None

    def question_source(self) -> str:
        """The bench's questions, as the field of `RunConfig`.

        For a known set this is its name, so that a run can be resumed from any folder. For another
        set, or if the file was changed, it is the file's path.
        """
        is_known = self.name in (SAMPLE, *SETS)
        own = self.question_file.read_bytes()
        if is_known and question_file(self.name).read_bytes() == own:
            return self.name
        return str(self.question_file.resolve())

    def prompt_file(self) -> Path:
        """The judge prompts: the published ones for a published set, else this project's own."""
        return (fetched(self.name, PROMPTS) if self.name in SETS else None) or OWN_PROMPTS

    def models(self) -> list[str]:
        """The models that have an answer file."""
        return sorted(path.stem for path in self.answers.glob("*.jsonl"))

    def answer_file(self, model: str) -> Path:
        return self.answers / f"{model}.jsonl"

    def read_model(self, model: str) -> dict[QuestionId, Answer]:
        """A model's answers by question_id. UserError where it has no answer file."""
        path = self.answer_file(model)
        if not path.is_file():
            there = ", ".join(self.models()) or "none"
            raise UserError(
                f"no answers of {model!r}: {path} does not exist; answer files there: {there}"
            )
        return read_answers(path)

    def _copy_known_files(self) -> None:
        """Put the files of a known set into the folder. UserError where the set is unknown."""
        sources = self._known_files()
        if not sources:
            raise UserError(
                f"no bench {self.name!r}: {self.question_file} does not exist, and the known sets "
                f"are {', '.join([SAMPLE, *SETS])}"
            )
        for name, find in sources.items():
            there = self.folder / name
            if there.exists():
                continue
            found = find()
            with writing(there, "give another --data-dir"):
                there.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(there, found.read_bytes())

    def _known_files(self) -> dict[str, Callable[[], Path]]:
        """File name -> function that finds the file of a known set. Empty: the set is unknown."""
        if self.name == SAMPLE:
            return {
                name: partial(SAMPLE_FOLDER.joinpath, name)
                for name in (QUESTIONS, _SAMPLE_REFERENCE)
            }
        if self.name in SETS:
            return {name: partial(fetched, self.name, name) for name in (QUESTIONS, REFERENCE)}
        return {}


def _default_data() -> Path:
    return Path("llm_judge/data") if Path("llm_judge").is_dir() else Path("data")
