"""A Llama of some shape with random weights: the time of a step does not depend on their values."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from decoders.engine.engine import Engine
from decoders.model.heads import MedusaHeads
from settings.measuring import ATTENTION_HEADS, MEDUSA_HEADS, ShapeSettings

HEAD_SPREAD = 0.02  # Standard deviation of the heads' weights.


def shape_model(settings: ShapeSettings, device: torch.device) -> Engine:
    """The model with its Medusa heads. The same settings give the same weights."""
    config = LlamaConfig(
        vocab_size=settings.vocab,
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 43 // 16,  # 11008 of 4096, as Vicuna-7B has it.
        num_hidden_layers=settings.layers,
        num_attention_heads=ATTENTION_HEADS,
        num_key_value_heads=ATTENTION_HEADS,
        max_position_embeddings=settings.context,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    with device, _default_dtype(getattr(torch, settings.dtype)):
        lm = LlamaForCausalLM(config)
        heads = MedusaHeads(MEDUSA_HEADS, settings.hidden, settings.vocab)
    for parameter in heads.parameters():
        parameter.data.normal_(0, HEAD_SPREAD)
    return Engine(lm, heads, fused=settings.compile)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """New tensors have this dtype while this lasts."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def weight_bytes(model: Engine) -> int:
    """Bytes of weights that a greedy step reads.

    The embedding table is left out: a step reads one row of it.
    """
    embedding = model.lm.get_input_embeddings().weight
    return sum(
        weight.numel() * weight.element_size()
        for weight in model.lm.parameters()
        if weight is not embedding
    )
