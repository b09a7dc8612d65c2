"""Decoders that run transformers' own `generate` on the same model, as most users would.

    hf-greedy       one token in each forward
    hf-static       the same with a static cache; on a GPU, `generate` then compiles the forward
    prompt-lookup   assisted generation; each step verifies a chain copied from the text so far
    assisted        assisted generation; each step verifies a chain from a smaller model

The prefill is a separate forward, so that prefill and decode times mean the same as for every other
decoder. (The smaller model reads the prompt in its first step.) Above temperature 0 they draw the
samples that the rule draws (`decoders.accept`), so their tokens can be compared with greedy's as
well.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import (
    Cache,
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import CausalLMOutput

from decoders.accept import Exact, Rule
from decoders.decoder import Decoder, check_at_least_one
from decoders.draft_model import DRAFTING, check_vocabulary
from decoders.drafter import Drafter
from decoders.model.model import Model
from decoders.step import NotANumber, Step, Stop


class _StepRecorder(StoppingCriteria):
    """Records a step for every forward, cuts its tokens as our loop does, and ends the turn.

    transformers calls it after each forward, as a stopping criterion. The forward's logits reach
    it before: by hooks of the model in assisted generation, otherwise by `_Watch`.
    """

    def __init__(self, model: Model, stop: Stop, prompt: int, prefilled: int) -> None:
        """prompt: positions of the prompt. prefilled: how many of them are in the cache."""
        self.model = model
        self.stop = stop
        self.length = prompt  # Positions of the text so far.
        self.prefilled = prefilled
        self.nodes = 0  # Positions that the last forward read; 0 before the first one.
        self.committed: list[int] = []
        self.steps: list[Step] = []
        self.has_step = True  # Whether the step of the last forward is recorded.
        self.prompt = prompt
        # [rows] bool: whether each row of the last forward's logits had a finite maximum.
        self.is_sound: Tensor | None = None
        self.sound_rows: list[Tensor] = []  # By step, `is_sound` of its kept rows.

    def before_forward(self, module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Correct the inputs of assisted generation, and count the positions that are read.

        Its first forward gets the whole prompt, even where the cache holds most of it. Its last one
        may get candidates beyond the context. None of these is kept, but their positions must be
        legal.
        """
        if self.nodes == 0 and kwargs["input_ids"].shape[1] > self.prefilled:
            for name in ("input_ids", "position_ids"):
                if name in kwargs:
                    kwargs[name] = kwargs[name][..., self.prefilled :]
        self.nodes = kwargs["input_ids"].shape[1]
        if self.length + self.nodes > self.model.context and "position_ids" in kwargs:
            kwargs["position_ids"] = kwargs["position_ids"].clamp(max=self.model.context - 1)
        return args, kwargs

    def after_forward(self, module: object, args: tuple, output: CausalLMOutput) -> None:
        self.read(output.logits)

    def read(self, logits: Tensor) -> None:
        """Check the logits of a forward. Its step is then still to be recorded."""
        self.has_step = False
        self.is_sound = logits.amax(-1).isfinite().flatten()

    def check(self) -> None:
        """NotANumber where a kept row names no token. Rows after a wrong candidate do not matter.

        Called at the end, so that a step needs no further wait for the device.
        """
        if not self.sound_rows:
            return
        is_sound = torch.cat(self.sound_rows).tolist()
        if not all(is_sound):
            raise NotANumber(self.prompt - 1 + is_sound.index(False))

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """[batch] bool: whether the turn ends after the text `input_ids` [batch, length]."""
        if self.steps and self.steps[-1].finish is not None:
            # Where the check is deferred, as on MPS, a further forward follows the end.
            return torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if self.has_step:  # Earlier releases' assisted generation asks about candidates, too.
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self.has_step = True
        new = input_ids[0, self.length :].tolist()
        tokens, finish = self.stop.cut(self.committed, new)
        self.sound_rows.append(self.is_sound[: len(new)])
        self.length = input_ids.shape[1]
        self.committed += tokens
        self.steps.append(Step(tokens, self.nodes, finish))
        has_ended = finish is not None
        return torch.full((len(input_ids),), has_ended, dtype=torch.bool, device=input_ids.device)


class _Watch(LogitsProcessor):
    """Passes the logits of each forward to a recorder. Every forward reads one token."""

    def __init__(self, recorder: _StepRecorder) -> None:
        self.recorder = recorder
        recorder.nodes = 1

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.recorder.read(scores)
        return scores


class _Choose(LogitsProcessor):
    """Rules out every token but the one that the rule chooses at a position.

    Only the scores of a forward of the base model are changed. Assisted generation also calls this
    with the scores of candidates, which are a smaller model's or made up. These are returned as
    they are.
    """

    def __init__(self, rule: Rule, recorder: _StepRecorder) -> None:
        self.rule = rule
        self.recorder = recorder

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.recorder.has_step:
            return scores
        # Where the rule has no token, 0 replaces it. `check` reports that at the end.
        chosen = self.rule.first_root(scores, input_ids.shape[1]).clamp(min=0)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen.unsqueeze(1), 0.0)


@dataclass
class HFGreedy(Decoder):
    """`generate` with one token in each forward. Base class of the others."""

    drafts: ClassVar[bool] = False
    max_nodes: ClassVar[int] = 1
    # Whether a forward may read several tokens.
    is_assisted: ClassVar[bool] = False

    def generate_options(self) -> dict[str, object]:
        """Further keyword arguments of `generate`."""
        return {}

    def empty_cache(self, positions: int) -> Cache:
        """A cache for a turn of so many positions, prompt included."""
        return DynamicCache(config=self.model.lm.config)

    @torch.inference_mode()
    def decode(
        self,
        prompt: Tensor,
        rule: Rule,
        stop: Stop,
        watched_by: Callable[[Drafter], Drafter] | None = None,
    ) -> Iterator[Step]:
        prompt = prompt.to(self.model.device).unsqueeze(0)
        cache = {self.model.cache_keyword: self.empty_cache(prompt.shape[1] + stop.max_tokens)}
        if prompt.shape[1] > 1:  # The last token's forward is the first step.
            with self.model.as_loaded():
                self.model.lm(input_ids=prompt[:, :-1], use_cache=True, logits_to_keep=1, **cache)
        return self._steps(prompt, cache, rule, stop)

    @torch.inference_mode()
    def _steps(
        self, prompt: Tensor, cache: dict[str, Cache], rule: Rule, stop: Stop
    ) -> Iterator[Step]:
        length = prompt.shape[1]
        recorder = _StepRecorder(self.model, stop, length, prefilled=length - 1)
        processors = [] if isinstance(rule, Exact) else [_Choose(rule, recorder)]
        if not self.is_assisted:
            processors.insert(0, _Watch(recorder))
        with self._as_loaded(recorder):
            self.model.lm.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=stop.max_tokens,
                # Some releases' prompt lookup needs an end-of-text token. The first id beyond the
                # vocabulary never occurs.
                eos_token_id=sorted(stop.eos) or [self.model.vocab],
                pad_token_id=0,
                stopping_criteria=StoppingCriteriaList([recorder]),
                logits_processor=LogitsProcessorList(processors),
                **self.generate_options(),
                **cache,
            )
        recorder.check()
        yield from recorder.steps

    @contextmanager
    def _as_loaded(self, recorder: _StepRecorder) -> Iterator[None]:
        """A context in which the model has none of our changes.

        For assisted generation it has the recorder's hooks. Otherwise it has none, as a compiled
        forward would be compiled anew for the hooks of every turn.
        """
        lm = self.model.lm
        with ExitStack() as stack:
            stack.enter_context(self.model.as_loaded())
            if self.is_assisted:
                before = lm.register_forward_pre_hook(recorder.before_forward, with_kwargs=True)
                stack.callback(before.remove)
                stack.callback(lm.register_forward_hook(recorder.after_forward).remove)
            yield


DEFAULT_SLOTS = 2048


@dataclass
class HFStatic(HFGreedy):
    """`generate` with a static cache, for which it compiles the forward on a GPU."""

    # Positions of the cache, at most the model's context. None: those of the run's longest turn, or
    # DEFAULT_SLOTS where that is not known.
    slots: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(slots=self.slots)

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.cache: StaticCache | None = None
        self.wanted = self.slots or DEFAULT_SLOTS

    def expect(self, positions: int) -> None:
        self.wanted = self.slots or positions or DEFAULT_SLOTS

    def empty_cache(self, positions: int) -> StaticCache:
        """The last turn's cache, emptied: for a new one the forward would be compiled again.

        A longer one is made where this turn does not fit.
        """
        if self.cache is None or positions > self.capacity:
            self.capacity = max(positions, min(self.wanted, self.model.context))
            self.cache = StaticCache(self.model.lm.config, max_cache_len=self.capacity)
        self.cache.reset()
        return self.cache


@dataclass
class PromptLookup(HFGreedy):
    """`generate` with candidates that are copied from the text so far."""

    is_assisted: ClassVar[bool] = True

    tokens: int = 10  # Most candidates in a step.
    ngram: int = 2  # The longest ending of the text that is looked up.

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least_one(tokens=self.tokens, ngram=self.ngram)

    def generate_options(self) -> dict[str, object]:
        return {"prompt_lookup_num_tokens": self.tokens, "max_matching_ngram_size": self.ngram}


@dataclass
class Assisted(HFGreedy):
    """`generate` with candidates of a smaller model."""

    is_assisted: ClassVar[bool] = True
    models: ClassVar[tuple[str, ...]] = (DRAFTING,)

    model: str | None = None  # Folder or hub id of the smaller model.

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.model:
            raise ValueError("it needs a model that assists: assisted:model=FOLDER, or a hub id")
        self.folder = self.model  # `setup` puts the base model in place of the option.

    def path_of(self, file: str) -> str | None:
        return self.folder

    def setup(self, model: Model) -> None:
        super().setup(model)
        self.assistant: Model = self.files[DRAFTING]
        check_vocabulary(self.assistant, model, self.folder)

    def generate_options(self) -> dict[str, object]:
        return {"assistant_model": self.assistant.lm}

    @contextmanager
    def _as_loaded(self, recorder: _StepRecorder) -> Iterator[None]:
        with self.assistant.as_loaded(), super()._as_loaded(recorder):
            yield
