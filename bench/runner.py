"""Questions x decoders -> turns on disk.

The decoders of a run share one loaded model and take turns question by question, so that their times are comparable. The
clock is here: it starts and stops at the edges of the prefill and of the whole decode, with the device synchronised.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
from tqdm import tqdm

from bench.chat import Chat, check_template
from bench.config import RunConfig
from bench.errors import UserError
from bench.loader import Loaded, check_device, check_model_name, gpu_memory, load
from bench.questions import Question, load_questions
from bench.records import RunFolder, Turn, environment, git_state
from bench.step_times import draft_time, step_times, synchronise
from decoders.accept import Rule, Typical, fold, make_rule
from decoders.base import Decoder
from decoders.budget import AutoBudget
from decoders.loop import Stop

# MT-Bench's temperature by category; anything else 0.7 (FastChat's llm_judge/common.py).
TEMPERATURES = {
    "writing": 0.7, "roleplay": 0.7, "extraction": 0.0, "math": 0.0, "coding": 0.0, "reasoning": 0.0,
    "stem": 0.1, "humanities": 0.1,
}  # fmt: skip
WARM_UP_TOKENS = 24


@dataclass(frozen=True)
class Job:
    """One answer: a question, one of its choices, one decoder."""

    question: Question
    choice: int
    decoder: Decoder
    spec: str


class Runner:
    """A loaded model and bound decoders, ready to answer."""

    def __init__(self, config: RunConfig, loaded: Loaded, chat: Chat, decoders: list[Decoder]) -> None:
        self.config = config
        self.loaded = loaded
        self.chat = chat
        self.decoders = dict(zip(config.decoders, decoders, strict=True))
        wanted = config.static_shapes
        loaded.model.static_shapes = loaded.model.device.type == "cuda" if wanted is None else wanted
        self.step_times = step_times(loaded.model) if any(decoder.auto for decoder in decoders) else None
        for spec, decoder in self.decoders.items():
            if decoder.auto:
                decoder.budget = AutoBudget(self.step_times)
            try:
                decoder.setup(loaded.model)
            except ValueError as error:
                raise UserError(f"decoder {spec!r} does not fit {loaded.name!r}: {error}") from error
            if decoder.auto:
                decoder.budget.draft_s = draft_time(decoder)

    @classmethod
    def load(cls, config: RunConfig, decoders: list[Decoder]) -> "Runner":
        """Load the model of a configuration and bind its decoders to it."""
        memory = gpu_memory(config.gpus, config.max_gpu_memory) if config.device == "balanced" else None
        loaded = load(config.model, config.device, config.dtype, config.load_in_8bit, config.load_in_4bit, memory)
        return cls(config, loaded, Chat.of(loaded.tokenizer, config.template), decoders)

    def jobs(self, questions: tuple[Question, ...]) -> Iterator[Job]:
        """Question by question; the decoder that goes first moves on with each, so that none always runs first."""
        specs = list(self.decoders)
        for at, question in enumerate(questions):
            for choice in range(self.config.num_choices):
                for place in range(len(specs)):
                    spec = specs[(at + place) % len(specs)]
                    yield Job(question, choice, self.decoders[spec], spec)

    def turns(self, questions: tuple[Question, ...]) -> Iterator[tuple[Job, int]]:
        """Every turn (1-based) of every job."""
        return ((job, turn) for job in self.jobs(questions) for turn in range(1, len(job.question.turns) + 1))

    def warm_up(self, question: Question) -> None:
        """Run every decoder briefly, so that no measured turn pays for first-time work; UserError where one cannot run."""
        for spec, decoder in self.decoders.items():
            try:
                prompt = self.chat.prompt([question.turns[0]], [])[: self.loaded.model.context - WARM_UP_TOKENS - 1]
                stop = Stop(frozenset(), WARM_UP_TOKENS)
                rule = make_rule("lossless", 0.0, 0, 1.0, Typical())
                for _ in decoder.decode(torch.tensor(prompt), rule, stop):
                    pass
            except Exception as error:
                what = " ".join(str(error).split())[:300]
                raise UserError(
                    f"decoder {spec!r} cannot run on {self.loaded.name!r}: {type(error).__name__}: {what}"
                ) from error

    def answer(self, job: Job, turn: int, answered: list[str]) -> Turn:
        """Generate one turn (1-based). Whatever goes wrong in it is recorded as that turn's failure."""
        question = job.question
        temperature = self.config.temperature
        if temperature is None:
            temperature = TEMPERATURES.get(question.category, 0.7)
        known = {
            "question_id": question.question_id, "category": question.category, "decoder": job.spec,
            "choice": job.choice, "turn": turn, "temperature": temperature,
            # The decoder is left out: at the same temperature they all draw the same samples.
            "seed": fold(self.config.seed, question.question_id, job.choice, turn),
        }  # fmt: skip
        prompt: list[int] = []
        try:
            prompt = self.chat.prompt(list(question.turns[:turn]), answered)
            return Turn(**known, prompt_tokens=len(prompt), **self._generate(job, prompt, temperature, known["seed"]))
        except Exception as error:  # noqa: BLE001 - a failed turn is a result; the run goes on and says so at its end
            if self.loaded.model.device.type == "cuda":
                torch.cuda.empty_cache()
            return Turn(
                **known, prompt_tokens=len(prompt), token_ids=[], accept_lengths=[], nodes=[], prefill_s=0.0, decode_s=0.0,
                finish_reason="error", error=f"{type(error).__name__}: {error}", text="",
            )  # fmt: skip

    def _generate(self, job: Job, prompt: list[int], temperature: float, seed: int) -> dict[str, object]:
        model, config = self.loaded.model, self.config
        room = model.context - len(prompt)
        if room < 1:
            raise ValueError(f"the prompt has {len(prompt)} tokens, but the model's context is {model.context}")
        rule, stop = self.rule_and_stop(job.decoder, room, temperature, seed)
        tokens: list[int] = []
        accept_lengths: list[int] = []
        nodes: list[int] = []
        finish = ""
        began = self._now()
        steps = job.decoder.decode(torch.tensor(prompt, device=model.device), rule, stop)
        prefilled = self._now()
        for step in steps:
            tokens += step.tokens
            accept_lengths.append(len(step.tokens))
            nodes.append(step.nodes)
            finish = step.finish or finish
        ended = self._now()
        if finish == "length" and room < config.max_new_tokens:
            finish = "context"
        return {
            "token_ids": tokens, "accept_lengths": accept_lengths, "nodes": nodes, "prefill_s": prefilled - began,
            "decode_s": ended - prefilled, "finish_reason": finish, "error": None, "text": self.chat.text(tokens),
            "step_ends": self.chat.step_ends(tokens, accept_lengths),
        }  # fmt: skip

    def rule_and_stop(self, decoder: Decoder, room: int, temperature: float, seed: int) -> tuple[Rule, Stop]:
        """How a turn's tokens are accepted and when it ends; `room` is what the context leaves of the prompt."""
        config = self.config
        rule = make_rule(config.acceptance, temperature, seed, config.top_p, config.typical, decoder.drafts)
        strings = self.chat.stops if self.chat.stop_strings else None
        return rule, Stop(self.loaded.eos | self.chat.stop_ids, min(config.max_new_tokens, room), strings)

    def _now(self) -> float:
        synchronise(self.loaded.model)
        return time.perf_counter()

    @torch.inference_mode()
    def logit_gap(self, prompt: list[int], tokens: list[int]) -> tuple[list[int], float]:
        """The two likeliest tokens after prompt + tokens, read as plain text, and how far their logits are apart."""
        ids = torch.tensor(prompt + tokens)
        best = self.loaded.model.prefill(ids, room=0).logits[-1].float().topk(2)
        return best.indices.tolist(), (best.values[0] - best.values[1]).item()


def run(config: RunConfig, out: Path, command: list[str]) -> RunFolder:
    """Do a whole run, or what is left of it. UserError before anything is loaded, where that can be told."""
    config.check()
    decoders = config.make_decoders()
    check_template(config.template)
    questions = load_questions(config.questions, config.limit, config.skip)
    check_model_name(config.model)
    check_device(config.device, config.load_in_8bit or config.load_in_4bit)
    settled = asdict(config) | {"questions_sha256": questions.sha256, "trees": config.tree_digests(decoders)}
    folder = RunFolder.open(out, settled)

    runner = Runner.load(config, decoders)
    loaded = runner.loaded
    now = datetime.now(timezone.utc)
    folder.begin(
        {(job.question.question_id, job.spec, job.choice, turn) for job, turn in runner.turns(questions.questions)},
        model={"name": loaded.name, "id": config.model, "identity": loaded.identity, "heads": loaded.model.num_heads},
        session={
            "command": command,
            "git": git_state(),
            "environment": environment(loaded.model.device, loaded.model.dtype),
            "step_times": asdict(runner.step_times) if runner.step_times else None,
            "start": now.isoformat(timespec="seconds"),
        },
        start_unix=now.timestamp(),
        questions={"name": questions.name, "sha256": questions.sha256, "count": len(questions.questions)},
        question_turns={str(q.question_id): len(q.turns) for q in questions.questions},
        question_texts={str(q.question_id): q.turns for q in questions.questions},
    )
    if _answer_all(runner, questions.questions, folder):
        folder.end(datetime.now(timezone.utc).isoformat(timespec="seconds"))
    _explain_differences(runner, questions.questions, folder)
    return folder


def _answer_all(runner: Runner, questions: tuple[Question, ...], folder: RunFolder) -> bool:
    """Generate the turns that are missing; whether there were any."""
    jobs = list(runner.jobs(questions))
    total = sum(1 for _ in runner.turns(questions))
    done = len(folder.turns)
    if done == total:
        return False
    runner.warm_up(questions[0])
    counts = {spec: [0, 0, 0.0] for spec in runner.decoders}  # tokens, steps, seconds, for the progress bar alone
    with tqdm(total=total, initial=done, unit="turn", desc="answering", dynamic_ncols=True) as bar:
        for job in jobs:
            answered: list[str] = []
            for number in range(1, len(job.question.turns) + 1):
                turn = folder.turns.get((job.question.question_id, job.spec, job.choice, number))
                if turn is None:
                    turn = runner.answer(job, number, answered)
                    folder.append(turn)
                    count = counts[job.spec]
                    count[0] += len(turn.token_ids)
                    count[1] += len(turn.accept_lengths)
                    count[2] += turn.decode_s
                    if count[1]:
                        rate = f"{count[0] / count[1]:.2f} tokens/inference, {count[0] / count[2]:.0f} tokens/s"
                        bar.set_postfix_str(f"{job.spec}: {rate}")
                    bar.update()
                if turn.failed:  # the next turn would need this one's answer
                    bar.write(
                        f"failed: question {turn.question_id}, {turn.decoder}, turn {turn.turn}: {turn.error}", file=sys.stderr
                    )
                    break
                answered.append(turn.text)
    return True


def _explain_differences(runner: Runner, questions: tuple[Question, ...], folder: RunFolder) -> None:
    """Say where a lossless decoder's tokens leave greedy's, and how near the tie was that made them."""
    config = runner.config
    if "greedy" not in config.decoders:
        return
    asked = {question.question_id: question.turns for question in questions}
    for turn in folder.turns.values():
        exact = turn.temperature == 0 or config.acceptance == "lossless"
        base = folder.turns.get((turn.question_id, "greedy", turn.choice, turn.turn))
        if not exact or turn.failed or base is None or base.failed or turn.token_ids == base.token_ids:
            continue
        before = [
            folder.turns[(turn.question_id, spec, turn.choice, number)].text
            for spec in (turn.decoder, "greedy")
            for number in range(1, turn.turn)
        ]
        half = len(before) // 2
        if before[:half] != before[half:]:
            continue  # its prompt already differs: the difference was in the turn before
        pairs = zip(turn.token_ids, base.token_ids, strict=False)
        first = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(turn.token_ids), len(base.token_ids)))
        prompt = runner.chat.prompt(list(asked[turn.question_id][: turn.turn]), before[:half])
        tokens, gap = runner.logit_gap(prompt, turn.token_ids[:first])
        print(
            f"differs from greedy: {turn.decoder}, question {turn.question_id}, turn {turn.turn}, token {first}: "
            f"{turn.token_ids[first : first + 1]} for {base.token_ids[first : first + 1]}; "
            f"likeliest {tokens}, logit gap {gap:.3g}",
            file=sys.stderr,
        )
