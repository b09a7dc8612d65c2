"""Where a bench's files lie, which is FastChat's layout.

    <data>/<bench>/question.jsonl
    <data>/<bench>/reference_answer/<judge>.jsonl
    <data>/<bench>/model_answer/<model id>.jsonl
    <data>/<bench>/model_judgment/<judge>_single.jsonl, <judge>_pair.jsonl

<data> is --data-dir; without it `llm_judge/data` where the current folder has an llm_judge in it, and `data` elsewhere. So
the scripts find the same files from a checkout's root (`python -m llm_judge...`) and from inside llm_judge/.

A bench is the shipped `sample`, a published set that `bench.fetch` knows, or any folder in this layout that
has a question.jsonl. Questions and references of the first two are copied into the folder, where FastChat's tools look.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.common.errors import UserError
from bench.common.files import safe_name, write_atomically
from bench.fetch import PROMPTS, QUESTIONS, REFERENCE, SETS, fetched
from bench.inputs.questions import SAMPLE, SAMPLE_FOLDER, QuestionSet, load_questions
from bench.store.answer_files import Answer, read_answers

OWN_PROMPTS = Path(__file__).parent / "data" / "judge_prompts.jsonl"


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bench-name",
        default="mt_bench",
        help=f"{', '.join(SETS)}, {SAMPLE}, or a folder in data (default: mt_bench)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="default: llm_judge/data from a checkout's root, elsewhere data",
    )


@dataclass(frozen=True)
class Bench:
    """One bench's folder."""

    name: str
    folder: Path

    @classmethod
    def of(cls, name: str, data: Path | None) -> "Bench":
        if not name or Path(name).name != name or name.startswith("."):
            raise UserError(f"--bench-name is {name!r}; expected the plain name of a question set")
        return cls(name, (data or _default_data()) / name)

    @property
    def question_file(self) -> Path:
        return self.folder / QUESTIONS

    @property
    def answers(self) -> Path:
        return self.folder / "model_answer"

    @property
    def references(self) -> Path:
        return self.folder / "reference_answer"

    def judgments(self, judge: str, kind: str) -> Path:
        """kind: single or pair."""
        return self.folder / "model_judgment" / f"{safe_name(judge)}_{kind}.jsonl"

    def questions(self) -> QuestionSet:
        """The questions; those of a known set, and its references, are put into the folder. UserError where there are none."""
        if not self.question_file.is_file():
            sources = self._known_files()
            if not sources:
                raise UserError(
                    f"no bench {self.name!r}: {self.question_file} does not exist, and the known sets are "
                    f"{', '.join([SAMPLE, *SETS])}"
                )
            for name, source in sources.items():
                there = self.folder / name
                if there.exists():
                    continue
                found = source()
                try:
                    there.parent.mkdir(parents=True, exist_ok=True)
                    write_atomically(there, found.read_bytes())
                except OSError as error:
                    raise UserError(
                        f"{there} cannot be written: {error.strerror}; give another --data-dir"
                    ) from error
        return load_questions(str(self.question_file))

    def questions_here(self) -> QuestionSet | None:
        """The questions where nothing has to be downloaded or written for them."""
        if self.question_file.is_file():
            return load_questions(str(self.question_file))
        here = self.name == SAMPLE or (
            self.name in SETS and fetched(self.name, QUESTIONS, download=False)
        )
        return load_questions(self.name) if here else None

    def _known_files(self) -> dict[str, Callable[[], Path]]:
        """Name in the folder -> where it comes from."""
        if self.name == SAMPLE:
            names = (QUESTIONS, "reference_answer/reference.jsonl")
            return {name: partial(SAMPLE_FOLDER.joinpath, name) for name in names}
        if self.name in SETS:
            return {
                name: partial(fetched, self.name, name)
                for name in (QUESTIONS, REFERENCE)
                if name in SETS[self.name]
            }
        return {}

    def prompt_file(self) -> Path:
        """The judge prompts that belong to the bench: the published ones to a published set, else this project's own."""
        return (fetched(self.name, PROMPTS) if self.name in SETS else None) or OWN_PROMPTS

    def models(self) -> list[str]:
        """Models that have an answer file."""
        return sorted(path.stem for path in self.answers.glob("*.jsonl"))

    def read_model(self, model: str) -> dict[int, Answer]:
        path = self.answers / f"{model}.jsonl"
        if not path.is_file():
            there = ", ".join(self.models()) or "none"
            raise UserError(
                f"no answers of {model!r}: {path} does not exist; answer files there: {there}"
            )
        return read_answers(path)


def _default_data() -> Path:
    return Path("llm_judge/data") if Path("llm_judge").is_dir() else Path("data")
