"""The jobs of a run: one answer each. Decoders take turns at being the first to answer."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bench.inputs.questions import Question
from bench.running.config import RunConfig
from bench.store.turn import Key, Turn
from decoders.accept import seed_of


@dataclass(frozen=True)
class Job:
    """One answer: a question, one of its choices, one decoder."""

    question: Question
    choice: int  # From 0 on.
    decoder: str  # Its label.
    # Turn (from 1 on) -> its text, for the turns that are answered already.
    done: Mapping[int, str] = field(default_factory=dict)

    @property
    def turns(self) -> range:
        return range(1, len(self.question.turns) + 1)

    def key(self, turn: int) -> Key:
        return self.question.question_id, self.decoder, self.choice, turn


def jobs(config: RunConfig, questions: tuple[Question, ...]) -> Iterator[Job]:
    """The jobs, question by question. Each question begins with another decoder."""
    labels = config.labels
    for number, question in enumerate(questions):
        for choice in range(config.num_choices):
            for later in range(len(labels)):
                yield Job(question, choice, labels[(number + later) % len(labels)])


def known_fields(config: RunConfig, job: Job, turn: int) -> dict[str, object]:
    """The fields of a `Turn` that are known before anything is generated."""
    question = job.question
    return {
        "question_id": question.question_id,
        "category": question.category,
        "decoder": job.decoder,
        "choice": job.choice,
        "turn": turn,
        "temperature": config.temperature_of(question.category),
        # Without the decoder, so that at one temperature all decoders draw the same samples.
        "seed": seed_of(config.seed, question.question_id, job.choice, turn),
    }


def failed_turn(config: RunConfig, job: Job, turn: int, error: str, prompt_tokens: int = 0) -> Turn:
    """The record of a turn that failed. It has no tokens, times or text."""
    return Turn(
        **known_fields(config, job, turn),
        prompt_tokens=prompt_tokens,
        token_ids=[],
        accept_lengths=[],
        nodes=[],
        prefill_s=0.0,
        decode_s=0.0,
        finish_reason="error",
        error=error,
        text="",
    )
