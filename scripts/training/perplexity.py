"""The loss of a model on held-out conversations."""

import math
from dataclasses import dataclass
from itertools import islice

import torch
from torch.nn import functional as F
from tqdm import tqdm

from bench.common.errors import UserError
from bench.common.strangers import strangers_code, told
from settings.training import PerplexitySettings
from training.corpus import read_chats
from training.models import load_model


@dataclass(frozen=True)
class HeldOutLoss:
    """A loss over some text."""

    nats: float  # Sum over all tokens.
    tokens: int
    text_bytes: int

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats_per_token)

    @property
    def bits_per_byte(self) -> float:
        """Loss in bits per byte of text. It can be compared between different tokenizers."""
        return self.nats / math.log(2) / self.text_bytes


@torch.inference_mode()
def held_out_loss(settings: PerplexitySettings) -> HeldOutLoss:
    """The loss summed over all conversations, each cut at the model's context.

    The first token of each is not predicted. UserError where there is no conversation with text,
    or the chat template refuses one.
    """
    loaded = load_model(settings)
    model, tokenizer = loaded.model, loaded.tokenizer
    nats = 0.0
    tokens = text_bytes = 0
    if not tokenizer.chat_template:
        raise UserError(
            f"the tokenizer of {settings.model!r} has no chat template, through which "
            "conversations are read; put one into its files"
        )
    not_empty = (turns for _, turns in read_chats(settings.corpus) if turns)
    for turns in tqdm(list(islice(not_empty, settings.limit)), desc="reading"):
        with strangers_code(_cannot_be_filled_in):
            text = tokenizer.apply_chat_template(turns, tokenize=False)
        tokens_of_text = tokenizer(text, add_special_tokens=False).input_ids[: model.context]
        if len(tokens_of_text) < 2:
            continue
        ids = torch.tensor([tokens_of_text], device=model.device)
        logits = model.lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
        nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
        text_bytes += len(tokenizer.decode(ids[0], skip_special_tokens=True).encode())
    if not text_bytes:
        raise UserError(f"{settings.corpus} has no conversation with text")
    return HeldOutLoss(nats, tokens, text_bytes)


def _cannot_be_filled_in(error: BaseException) -> str:
    return f"the tokenizer's chat template cannot be filled in: {told(error)}"
