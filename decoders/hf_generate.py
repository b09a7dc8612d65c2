"""Two decoders that run transformers' own `generate` on the same model, as most users would.

    hf-greedy       one token in each forward
    prompt-lookup   assisted generation; each step verifies a chain copied from the text so far

The prefill is a separate forward, so that prefill and decode times mean the same as for every other
decoder. Above temperature 0 both draw the samples that the rule draws (`decoders.accept`), so their
tokens can be compared with greedy's as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.modeling_outputs import CausalLMOutput

from decoders.accept import Exact, Rule
from decoders.decoder import Decoder
from decoders.drafter import Drafter
from decoders.model.model import Model
from decoders.step import NotANumber, Step, Stop


class _StepRecorder(StoppingCriteria):
    """Records the tokens of every forward, cuts them as our loop does, and ends the turn."""

    def __init__(self, model: Model, stop: Stop, prompt: int, prefilled: int) -> None:
        """prompt: positions of the prompt. prefilled: how many of them are in the cache."""
        self.model = model
        self.stop = stop
        self.length = prompt  # Positions of the text so far.
        self.prefilled = prefilled
        self.nodes = 0  # Positions that the last forward read; 0 before the first one.
        self.committed: list[int] = []
        self.steps: list[Step] = []
        self.is_noted = True  # Whether the last forward was noted.
        self.is_sound: Tensor | None = None  # Whether all rows of logits had a finite maximum.

    def before_forward(self, module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Correct the inputs of assisted generation.

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
        self.is_noted = False
        is_sound = output.logits.amax(-1).isfinite().all()
        self.is_sound = is_sound if self.is_sound is None else self.is_sound & is_sound

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        if self.is_noted:  # Earlier releases' assisted generation asks about candidates, too.
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self.is_noted = True
        new = input_ids[0, self.length :].tolist()
        tokens, finish = self.stop.cut(self.committed, new)
        self.length = input_ids.shape[1]
        self.committed += tokens
        self.steps.append(Step(tokens, self.nodes, finish))
        has_ended = finish is not None
        return torch.full((len(input_ids),), has_ended, dtype=torch.bool, device=input_ids.device)


class _Choose(LogitsProcessor):
    """Leaves only the token that the rule chooses at each position."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        # Where the rule has no token, 0 replaces it. `is_sound` reports that at the end.
        chosen = self.rule.first_root(scores, input_ids.shape[1]).clamp(min=0)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen.unsqueeze(1), 0.0)


@dataclass
class HFGreedy(Decoder):
    drafts: ClassVar[bool] = False
    max_nodes: ClassVar[int] = 1

    def generate_options(self) -> dict[str, object]:
        """Further keyword arguments of `generate`."""
        return {}

    @torch.inference_mode()
    def decode(
        self,
        prompt: Tensor,
        rule: Rule,
        stop: Stop,
        watched_by: Callable[[Drafter], Drafter] | None = None,
    ) -> Iterator[Step]:
        prompt = prompt.to(self.model.device).unsqueeze(0)
        cache = {self.model.cache_keyword: DynamicCache(config=self.model.lm.config)}
        if prompt.shape[1] > 1:  # The last token's forward is the first step.
            with self.model.as_loaded():
                self.model.lm(input_ids=prompt[:, :-1], use_cache=True, logits_to_keep=1, **cache)
        return self._steps(prompt, cache, rule, stop)

    @torch.inference_mode()
    def _steps(
        self, prompt: Tensor, cache: dict[str, DynamicCache], rule: Rule, stop: Stop
    ) -> Iterator[Step]:
        length = prompt.shape[1]
        recorder = _StepRecorder(self.model, stop, length, prefilled=length - 1)
        chooser = LogitsProcessorList([] if isinstance(rule, Exact) else [_Choose(rule)])
        lm = self.model.lm
        hooks = [
            lm.register_forward_pre_hook(recorder.before_forward, with_kwargs=True),
            lm.register_forward_hook(recorder.after_forward),
        ]
        try:
            with self.model.as_loaded():
                lm.generate(
                    prompt,
                    attention_mask=torch.ones_like(prompt),
                    do_sample=False,
                    max_new_tokens=stop.max_tokens,
                    # Some releases' prompt lookup needs an end-of-text token. The first id beyond
                    # the vocabulary never occurs.
                    eos_token_id=sorted(stop.eos) or [self.model.vocab],
                    pad_token_id=0,
                    stopping_criteria=StoppingCriteriaList([recorder]),
                    logits_processor=chooser,
                    **self.generate_options(),
                    **cache,
                )
        finally:
            for hook in hooks:
                hook.remove()
        if recorder.is_sound is not None and not recorder.is_sound:
            raise NotANumber(recorder.length)
        yield from recorder.steps


@dataclass
class PromptLookup(HFGreedy):
    tokens: int = 10  # Most candidates in a step.
    ngram: int = 2  # The longest ending of the text that is looked up.

    def __post_init__(self) -> None:
        for name in ("tokens", "ngram"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def generate_options(self) -> dict[str, object]:
        return {"prompt_lookup_num_tokens": self.tokens, "max_matching_ngram_size": self.ngram}
