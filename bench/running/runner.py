"""One process that answers questions: a loaded model, bound decoders, and the clock.

The decoders share one loaded model and take turns question by question, so that their times are
comparable. The clock starts and stops at the edges of the prefill and of the whole decode, with the
device synchronised.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

import torch

from bench.common.errors import UserError, warn
from bench.common.strangers import StrangersError, strangers_code, told
from bench.common.waiting import patience
from bench.inputs.chat import Chat
from bench.inputs.devices import gpu_memory
from bench.inputs.loader import Loaded, load
from bench.inputs.questions import Question
from bench.running.clock import host_now, now
from bench.running.config import RunConfig
from bench.running.decoders import bind, described, make_decoders, plain
from bench.running.digests import is_plugin
from bench.running.environment import environment, peak_bytes
from bench.running.jobs import Job, failed_turn, known_fields
from bench.running.shared_model import SharedModel
from bench.running.step_times import AutoTimes, given_times, measured_times
from bench.store.run_record import Difference
from bench.store.turn import Turn, check_turn, common_length
from decoders.accept import Exact, Rule, make_rule
from decoders.budget import Budgeted
from decoders.decoder import Decoder
from decoders.draft_check import Checked
from decoders.engine.rehearsal import rehearse
from decoders.step import Stop

WARM_UP_TOKENS = 24
SEPARATORS = 8  # Most tokens that a template puts after an answer.


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
        # With --step-times, budgets ignore the clock, so that a run can be repeated exactly.
        self.follows_clock = config.step_times is None
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
        prompt = self._first_prompt(questions)
        with patience("reading the questions"):
            self.reach = self._longest_turn()
        for label, decoder in self.decoders.items():
            with patience(f"warming up decoder {label!r}"):
                self._warm_up(label, decoder, prompt)
            self._check_shared(f"decoder {label!r}, while it was warmed up,")
        with patience("capturing steps as graphs"):
            self._rehearse()

    def _first_prompt(self, questions: Sequence[Question]) -> list[int]:
        """The prompt of the first question that has one. Where none has, the first one's UserError.

        The turns of a question without a prompt fail in the run, and say so.
        """
        errors = []
        for question in questions:
            try:
                with strangers_code(lambda error: f"no prompt can be made: {told(error)}"):
                    return self.prompt([question.turns[0]], [])
            except UserError as error:
                errors.append(error)
        raise errors[0]

    def _warm_up(self, label: str, decoder: Decoder | Budgeted, prompt: list[int]) -> None:
        """Decode a few tokens. UserError where that fails, or a draft is invalid."""
        longest = self.loaded.model.context - WARM_UP_TOKENS - 1
        stop = Stop(frozenset(), WARM_UP_TOKENS)
        own = plain(decoder)
        wrong = f"decoder {label!r} cannot run on {self.loaded.name!r}"
        with strangers_code(lambda error: f"{wrong}: {described(error, own)}"):
            own.expect(self.reach)
            ids = torch.tensor(prompt[:longest])
            # Without the budget, so that everything is drafted once. Every draft is checked.
            steps = [own.decode(ids, Exact(), stop, watched_by=Checked)]
            if decoder is not own:
                steps.append(decoder.decode(ids, Exact(), stop))
            for decoding in steps:
                for _ in decoding:
                    pass
            decoder.forget()

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

    def _rehearse(self) -> None:
        """Capture every kind of step that the run's turns may need. Nothing without graphs."""
        model, config = self.loaded.model, self.config
        if not (model.static_shapes and model.graphs.captures):
            return
        reach = self.reach
        temperatures = {config.temperature_of(question.category) for question in self.questions}
        captured = [decoder for decoder in self.decoders.values() if decoder.captures]
        try:
            # The longest cache first: making a longer one later would discard the graphs.
            beyond = [
                decoder.slots_beyond
                for decoder in self.decoders.values()
                if type(plain(decoder)).decode is Decoder.decode  # Others use no cache of ours.
            ]
            model.reserve(2 + reach + max(beyond, default=0))
            for decoder in captured:
                rules = [
                    self.rule_and_stop(decoder, reach, temperature, seed=0)[0]
                    for temperature in temperatures
                ]
                for rule in {rule.constants: rule for rule in rules}.values():
                    rehearse(model, decoder, rule, reach)
                decoder.forget()  # Its steps held made-up tokens.
        except Exception as error:  # noqa: BLE001 - such as no memory; turns may go well without
            warn(f"not all steps could be captured before the first answer: {told(error)}")
            model.release()

    def _longest_turn(self) -> int:
        """The most positions that a turn of the run may take, its prompt included."""
        return min(self.loaded.model.context, max(map(self._extent, self.questions), default=0))

    def _extent(self, question: Question) -> int:
        """The most positions that a question's conversation may take.

        0 where its prompts cannot be made. Its turns will report that.
        """
        try:
            with strangers_code(told):
                prompts = [len(self.prompt([asked], [])) for asked in question.turns]
        except UserError:
            return 0
        return sum(prompts) + len(prompts) * (self.config.max_new_tokens + SEPARATORS)

    def prompt(self, asked: list[str], answered: list[str]) -> list[int]:
        """As `Chat.prompt`. UserError also where the model does not have one of its tokens."""
        ids = self.chat.prompt(asked, answered)
        vocab = self.loaded.model.vocab
        beyond = next((token for token in ids if token >= vocab), None)
        if beyond is not None:
            text = self.loaded.tokenizer.convert_ids_to_tokens(beyond)
            raise UserError(
                f"the prompt has token {beyond} ({text!r}), but the model's vocabulary has {vocab} "
                "tokens: the tokenizer was extended, and the model was not; use the tokenizer that "
                "belongs to the model"
            )
        return ids

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
                prompt = self.prompt(list(job.question.turns[:turn]), answered)
                generated = self._generate(decoder, prompt, known["temperature"], known["seed"])
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
            self._rehearse()
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

    def _generate(
        self, decoder: Decoder | Budgeted, prompt: list[int], temperature: float, seed: int
    ) -> dict[str, object]:
        """Generate a turn. Returns the fields of a `Turn` that result from it."""
        model = self.loaded.model
        room = self.room_behind(prompt)
        rule, stop = self.rule_and_stop(decoder, room, temperature, seed)
        tokens: list[int] = []
        accept_lengths: list[int] = []
        nodes: list[int] = []
        draft_depths: list[int] = []
        finish = ""
        began = now(model.device)
        steps = decoder.decode(torch.tensor(prompt, device=model.device), rule, stop)
        prefilled = step_began = now(model.device)
        for step in steps:
            if self.follows_clock:
                step_ended = host_now()  # The step has waited for the device.
                decoder.took(step_ended - step_began)
                step_began = step_ended
            tokens += step.tokens
            accept_lengths.append(len(step.tokens))
            nodes.append(step.nodes)
            if isinstance(decoder, Budgeted):
                draft_depths.append(decoder.verified_depth)
            finish = step.finish or finish
        ended = now(model.device)
        if finish == "length" and room < self.config.max_new_tokens:
            finish = "context"
        return {
            "token_ids": tokens,
            "accept_lengths": accept_lengths,
            "nodes": nodes,
            "prefill_s": prefilled - began,
            "decode_s": ended - prefilled,
            "finish_reason": finish,
            "error": None,
            "text": self.chat.text(tokens),
            "step_ends": self.chat.step_ends(tokens, accept_lengths),
            "draft_depths": draft_depths,
        }

    def room_behind(self, prompt: list[int]) -> int:
        """Positions of the context that a prompt leaves free. ValueError where it leaves none."""
        context = self.loaded.model.context
        if len(prompt) >= context:
            raise ValueError(
                f"the prompt has {len(prompt)} tokens, but the model's context is {context}"
            )
        return context - len(prompt)

    def rule_and_stop(
        self, decoder: Decoder | Budgeted, room: int, temperature: float, seed: int
    ) -> tuple[Rule, Stop]:
        """How a turn's tokens are accepted, and when it ends.

        room: positions that are left in the context after the prompt.
        """
        config = self.config
        rule = make_rule(
            config.acceptance, temperature, seed, config.top_p, config.typical, decoder.drafts
        )
        has_stop = self.chat.stops if self.chat.stop_strings else None
        eos = self.loaded.eos | self.chat.stop_ids
        return rule, Stop(eos, min(config.max_new_tokens, room), has_stop)

    def peak_bytes(self) -> int:
        return peak_bytes(self.loaded.model.device)

    def first_difference(
        self, asked: list[str], answered: list[str], turn: Turn, base: Turn
    ) -> Difference:
        first = common_length(turn.token_ids, base.token_ids)
        text = self.prompt(asked, answered) + turn.token_ids[:first]
        highest, gap = self.gap(text, turn.temperature, turn.seed)
        ours, theirs = (next(iter(each.token_ids[first:]), None) for each in (turn, base))
        gap = gap if math.isfinite(gap) else None  # run.json holds finite numbers.
        found = dict(token=first, ours=ours, theirs=theirs, highest=highest, gap=gap)
        return Difference.of(turn.key, **found)

    @torch.inference_mode()
    def gap(self, text: list[int], temperature: float, seed: int) -> tuple[list[int], float]:
        """The two tokens with the highest scores after a text, and their gap in logits.

        The text is read in one pass. The scores are those of a lossless rule: the logits, or above
        temperature 0 the logits / temperature + the sample's noise. The gap is the change of one
        logit that makes both scores equal. It is infinite where --top-p may have left out a token,
        as rounding can then move a token in or out.
        """
        rule = make_rule("lossless", temperature, seed, self.config.top_p, self.config.typical)
        logits = self.loaded.model.prefill(torch.tensor(text), room=0).logits[-1:]
        best = rule.scores(logits, len(text))[0].float().topk(2)
        gap = (best.values[0] - best.values[1]).item() * (temperature or 1)
        is_known = temperature == 0 or self.config.top_p == 1
        return best.indices.tolist(), gap if is_known else math.inf
