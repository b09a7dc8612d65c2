"""One process that answers questions with a loaded model and bound decoders.

The decoders share the loaded model and take turns question by question, so that their times are
comparable.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from bench.common.errors import UserError, warn
from bench.common.strangers import StrangersError, strangers_code, told
from bench.common.waiting import patience
from bench.inputs.chat import Chat
from bench.inputs.devices import gpu_memory
from bench.inputs.loader import Loaded, load
from bench.inputs.questions import Question
from bench.running.config import RunConfig
from bench.running.decoders import bind, described, make_decoders, plain
from bench.running.digests import is_plugin
from bench.running.environment import environment, peak_bytes
from bench.running.jobs import Job, failed_turn, known_fields
from bench.running.shared_model import SharedModel
from bench.running.step_times import AutoTimes, given_times, measured_times
from bench.running.turn_generator import TurnGenerator
from bench.running.warm_up import capture_steps, first_prompt, longest_turn, warm_up
from bench.store.run_record import Difference
from bench.store.turn import Turn, check_turn, common_length
from decoders.budget import Budgeted
from decoders.decoder import Decoder


class Runner:
    """A loaded model and bound decoders, ready to answer. Its public methods are `Crew`'s."""

    def __init__(
        self,
        config: RunConfig,
        loaded: Loaded,
        chat: Chat,
        decoders: Mapping[str, Decoder],
        times: AutoTimes | None = None,
    ) -> None:
        """UserError where the chat's prompts are not what was asked.

        decoders: by label. times: for those with `nodes=auto`. None: they are measured now.
        """
        self.config = config
        self.loaded = loaded
        self.chat = chat
        self.generator = TurnGenerator(config, loaded, chat)
        self.warnings = [*loaded.warnings, *chat.check()]
        if not (loaded.eos or chat.stop_ids or chat.stop_strings):
            self.warnings.append(
                "neither the model nor its template names a token that ends an answer: every "
                "answer runs to --max-new-tokens"
            )
        self._has_told_special = False  # Whether an answer with a special token was told.
        self.questions: Sequence[Question] = ()  # Steps are rehearsed for these.
        self.reach = 0  # The most positions that one of their turns may take.
        model, wanted = loaded.model, config.static_shapes
        model.static_shapes = model.graphs.captures if wanted is None else wanted
        if times is None and any(decoder.auto for decoder in decoders.values()):
            with patience("measuring how long steps take on this machine"):
                times = measured_times(model)
        self.times = times
        self.plugins = [label for label, decoder in decoders.items() if is_plugin(decoder)]
        # None: no decoder is a plug-in. The project's own ones do not change the model.
        self.shared = SharedModel(model) if self.plugins else None
        self.decoders: dict[str, Decoder | Budgeted] = {}
        for label, decoder in decoders.items():
            self.decoders[label] = bind(label, decoder, loaded, times)
            self._check_shared(f"decoder {label!r}, while it was set up,")
            if self.shared is not None and (hooks := self.shared.new_hooks()):
                warn(
                    f"decoder {label!r} has put {hooks} functions into the model's layers; they "
                    "run in every decoder's steps, and slow all of them"
                )

    @classmethod
    def load(
        cls,
        config: RunConfig,
        decoders: Mapping[str, Decoder] | None = None,
        times: AutoTimes | None = None,
        began: datetime | None = None,
    ) -> "Runner":
        """Load what `config` asks for, and bind its decoders to it.

        decoders: the result of `make_decoders`. None: they are made now. times: as above. None:
        those of --step-times, else they are measured. began: when the run began, which is the time
        that a chat template is told. None: now.
        """
        decoders = make_decoders(config) if decoders is None else decoders
        times = given_times(config, decoders) if times is None else times
        memory = None
        if config.device == "balanced":
            memory = gpu_memory(config.gpus, config.max_gpu_memory)
        loaded = load(
            config.model,
            config.device,
            config.dtype,
            load_in_8bit=config.load_in_8bit,
            load_in_4bit=config.load_in_4bit,
            max_memory=memory,
            trust_remote_code=config.trust_remote_code,
            compile=config.compile,
        )
        chat = Chat.of(loaded.tokenizer, config.template, began)
        return cls(config, loaded, chat, decoders, times)

    def facts(self) -> dict[str, object]:
        loaded = self.loaded
        model = {
            "name": loaded.name,
            "id": self.config.model,
            "identity": loaded.identity,
            "contents": loaded.contents,
            "prompt": self.chat.digest(),
            "tokenizer": self.chat.digest_of_text(),
            "heads": loaded.model.num_heads,
        }
        budgeted = {
            label: decoder
            for label, decoder in self.decoders.items()
            if isinstance(decoder, Budgeted)
        }
        return {
            "model": model,
            "environment": environment(loaded.model.device, loaded.model.dtype) | {"workers": 1},
            "changes": loaded.model.changes.listed(),
            "step_times": asdict(self.times.steps) if self.times else None,
            "step_times_spread": self.times.spread if self.times else None,
            "draft_times": {label: each.budget.draft_s for label, each in budgeted.items()},
            "warnings": self.warnings,
        }

    def question_warnings(self, questions: Sequence[Question]) -> list[str]:
        texts = ((each.question_id, text) for each in questions for text in each.turns)
        return list(self.chat.check_questions(texts))

    def warm_up(self, questions: Sequence[Question]) -> None:
        self.questions = questions
        prompt = first_prompt(self.generator, questions)
        with patience("reading the questions"):
            self.reach = longest_turn(self.generator, questions)
        for label, decoder in self.decoders.items():
            with patience(f"warming up decoder {label!r}"):
                warm_up(label, decoder, self.generator, prompt, self.reach)
            self._check_shared(f"decoder {label!r}, while it was warmed up,")
        with patience("capturing steps as graphs"):
            self._capture_steps()

    def _capture_steps(self) -> None:
        capture_steps(self.decoders.values(), self.generator, self.questions, self.reach)

    def _check_shared(self, who: str) -> None:
        """UserError where a decoder of another package has changed what all decoders share."""
        if self.shared is None:
            return
        wrong = f"{who} has changed what all decoders share"
        with strangers_code(lambda error: f"{wrong}: {told(error)}"):
            change = self.shared.change()
        if change:
            raise UserError(
                f"{wrong}: {change}. No later answer would be this model's; leave that decoder "
                "out, or mend it"
            )

    def answers(self, jobs: Iterable[Job], stopping: Callable[[], bool]) -> Iterator[Turn]:
        for job in jobs:
            for turn in self.turns_of(job):
                yield turn
                if stopping():
                    return

    def turns_of(self, job: Job) -> Iterator[Turn]:
        """The turns of a job that are not done. After a failed one there is no next."""
        answered: list[str] = []
        for number in job.turns:
            text = job.done.get(number)
            if text is None:
                turn = self.answer(job, number, answered)
                self._check_shared(f"one of {', '.join(self.plugins)}")
                yield turn
                if turn.failed:
                    return
                text = turn.text
            answered.append(text)

    def answer(self, job: Job, turn: int, answered: list[str]) -> Turn:
        """Generate one turn, from 1 on. Whatever goes wrong is recorded as the turn's failure.

        answered: the texts of the turns before.
        """
        known = known_fields(self.config, job, turn)
        prompt: list[int] = []
        decoder = self.decoders[job.decoder]
        try:
            with strangers_code(lambda error: described(error, plain(decoder))):
                prompt = self.generator.prompt(list(job.question.turns[:turn]), answered)
                generated = self.generator.generate(
                    decoder, prompt, known["temperature"], known["seed"]
                )
                made = Turn(**known, prompt_tokens=len(prompt), **generated)
                check_turn(made)  # A plug-in's steps may be invalid.
                self._tell_special(made)
            return made
        except UserError as error:  # A failed turn is a result.
            failure = str(error)
            is_memory_sound = not isinstance(error, StrangersError) or isinstance(
                error.__cause__, (ValueError, ArithmeticError)
            )
        # After the except block nothing holds the turn's tensors any more. So their memory can be
        # freed for the next turn.
        if is_memory_sound:
            self.loaded.model.wipe()
        else:
            self.loaded.model.release()
            self._capture_steps()
        return failed_turn(self.config, job, turn, failure, len(prompt))

    def _tell_special(self, turn: Turn) -> None:
        """Warn of the first answer with a special token inside, which its text leaves out."""
        if self._has_told_special:
            return
        token = self.chat.special_inside(turn.token_ids)
        if token is not None:
            self._has_told_special = True
            warn(
                f"the answer to question {turn.question_id} (decoder {turn.decoder!r}) holds the "
                f"special token {token!r} before its end; texts leave such tokens out (further "
                "such answers are not told)"
            )

    def peak_bytes(self) -> int:
        return peak_bytes(self.loaded.model.device)

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> Difference:
        first = common_length(turn.token_ids, base.token_ids)
        text = self.generator.prompt(asked, answered) + turn.token_ids[:first]
        highest, gap = self.generator.gap(text, turn.temperature, turn.seed)
        ours, theirs = (next(iter(each.token_ids[first:]), None) for each in (turn, base))
        gap = gap if math.isfinite(gap) else None  # run.json holds finite numbers.
        found = dict(token=first, ours=ours, theirs=theirs, highest=highest, gap=gap)
        return Difference.of(turn.key, **found)
