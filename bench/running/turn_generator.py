"""Makes prompts, and generates and times the tokens that follow them.

The clock starts and stops at the edges of the prefill and of the whole decode, with the device
synchronised.
"""

import math

import torch

from bench.common.errors import UserError
from bench.inputs.chat import Chat
from bench.inputs.loader import Loaded
from bench.running.clock import host_now, now
from bench.running.config import RunConfig
from decoders.accept import Rule, make_rule
from decoders.budget import Budgeted
from decoders.decoder import Decoder
from decoders.step import Stop


class TurnGenerator:
    """A loaded model and its chat, by the settings of a run."""

    def __init__(self, config: RunConfig, loaded: Loaded, chat: Chat) -> None:
        self.config = config
        self.loaded = loaded
        self.chat = chat

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

    def generate(
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
            # With --step-times, budgets ignore the clock, so that a run can be repeated exactly.
            if self.config.step_times is None:
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
