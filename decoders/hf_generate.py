"""What a user would otherwise pick: transformers' own `generate`, on the same model, in the same records.

    hf-greedy       one token a forward
    prompt-lookup   its assisted generation with candidates copied from the text so far, a chain a step

The prefill is done apart, as for every decoder, so that prefill and decode times mean the same. At temperature > 0 both draw
the samples that the rule draws (decoders/accept.py), so their tokens too can be compared with greedy's.
"""

from collections.abc import Iterator
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
from decoders.loop import NotANumber, Step, Stop
from decoders.model.model import Model
from decoders.registry import register


class _Steps(StoppingCriteria):
    """Is asked after every forward, notes its tokens, cuts them as our loop does, and says when the turn has ended."""

    def __init__(self, model: Model, stop: Stop, prompt: int, prefilled: int) -> None:
        self.model = model
        self.stop = stop
        self.length = prompt  # positions of the text so far
        self.prefilled = prefilled  # positions that are in the cache already
        self.nodes = 0  # positions that the last forward looked at; 0 before the first
        self.committed: list[int] = []
        self.steps: list[Step] = []
        self.asked = True  # whether this was asked about the last forward
        self.sound: Tensor | None = None  # whether every row of logits had a finite highest one

    def before_forward(self, module: object, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Assisted generation gives its first forward the whole prompt, whatever the cache holds of it, and its last one
        candidates beyond the context, whose positions must be legal although none of them is kept."""
        if self.nodes == 0 and kwargs["input_ids"].shape[1] > self.prefilled:
            kwargs |= {
                name: kwargs[name][..., self.prefilled :]
                for name in ("input_ids", "position_ids")
                if name in kwargs
            }
        self.nodes = kwargs["input_ids"].shape[1]
        if self.length + self.nodes > self.model.context and "position_ids" in kwargs:
            kwargs["position_ids"] = kwargs["position_ids"].clamp(max=self.model.context - 1)
        return args, kwargs

    def after_forward(self, module: object, args: tuple, output: CausalLMOutput) -> None:
        self.asked = False
        sound = output.logits.amax(-1).isfinite().all()
        self.sound = sound if self.sound is None else self.sound & sound

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        if self.asked:  # in earlier releases assisted generation asks about its candidates, too
            return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        self.asked = True
        tokens, finish = self.stop.cut(self.committed, input_ids[0, self.length :].tolist())
        self.length = input_ids.shape[1]
        self.committed += tokens
        self.steps.append(Step(tokens, self.nodes, finish))
        return torch.full(
            (len(input_ids),), finish is not None, dtype=torch.bool, device=input_ids.device
        )


class _Choose(LogitsProcessor):
    """Leaves only the token that the rule chooses at each position."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        chosen = self.rule.first(scores, input_ids.shape[1]).clamp(
            min=0
        )  # where there is none, that is said at the end
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen.unsqueeze(1), 0.0)


@register("hf-greedy")
@dataclass
class HFGreedy(Decoder):
    drafts: ClassVar[bool] = False
    max_nodes: ClassVar[int] = 1

    def options(self) -> dict[str, object]:
        return {}

    @torch.inference_mode()
    def decode(self, prompt: Tensor, rule: Rule, stop: Stop) -> Iterator[Step]:
        prompt = prompt.to(self.model.device).unsqueeze(0)
        cache = {self.model.cache_keyword: DynamicCache(config=self.model.lm.config)}
        if prompt.shape[1] > 1:  # the last token's forward is the first step
            with self.model.as_loaded():
                self.model.lm(input_ids=prompt[:, :-1], use_cache=True, logits_to_keep=1, **cache)
        return self._steps(prompt, cache, rule, stop)

    @torch.inference_mode()
    def _steps(
        self, prompt: Tensor, cache: dict[str, DynamicCache], rule: Rule, stop: Stop
    ) -> Iterator[Step]:
        noted = _Steps(self.model, stop, prompt.shape[1], prefilled=prompt.shape[1] - 1)
        hooks = [
            self.model.lm.register_forward_pre_hook(noted.before_forward, with_kwargs=True),
            self.model.lm.register_forward_hook(noted.after_forward),
        ]
        try:
            with self.model.as_loaded():
                self.model.lm.generate(
                    prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
                    # Some releases' prompt lookup needs an end of text; the one behind the vocabulary never comes.
                    max_new_tokens=stop.max_tokens, eos_token_id=sorted(stop.eos) or [self.model.vocab], pad_token_id=0,
                    stopping_criteria=StoppingCriteriaList([noted]),
                    logits_processor=LogitsProcessorList([] if isinstance(rule, Exact) else [_Choose(rule)]),
                    **self.options(), **cache,
                )  # fmt: skip
        finally:
            for hook in hooks:
                hook.remove()
        if noted.sound is not None and not noted.sound:
            raise NotANumber(noted.length)
        yield from noted.steps


@register("prompt-lookup")
@dataclass
class PromptLookup(HFGreedy):
    tokens: int = 10  # candidates a step at most
    ngram: int = 2  # the longest ending of the text that is looked up

    def __post_init__(self) -> None:
        for name in ("tokens", "ngram"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    def options(self) -> dict[str, object]:
        return {"prompt_lookup_num_tokens": self.tokens, "max_matching_ngram_size": self.ngram}
