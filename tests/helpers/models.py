"""Tiny models with random weights, of many families."""

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from decoders.model.heads import MedusaHeads

TINY = dict(
    vocab_size=101,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=160,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
WINDOW = dict(sliding_window=24)
FAMILIES = {
    "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**TINY)),
    "llama-eager": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**TINY, attn_implementation="eager")),
    "mistral": lambda: tf.MistralForCausalLM(tf.MistralConfig(**TINY, sliding_window=None)),
    "mistral-window": lambda: tf.MistralForCausalLM(tf.MistralConfig(**TINY, **WINDOW)),
    "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**TINY)),
    "qwen2-window": lambda: tf.Qwen2ForCausalLM(
        tf.Qwen2Config(**TINY, **WINDOW, use_sliding_window=True, max_window_layers=1)
    ),
    "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**TINY, head_dim=8)),
    "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**TINY, head_dim=8)),
    "gemma2-window": lambda: tf.Gemma2ForCausalLM(tf.Gemma2Config(**TINY, **WINDOW, head_dim=8)),
    "gemma3-window": lambda: tf.Gemma3ForCausalLM(
        tf.Gemma3TextConfig(**TINY, **WINDOW, head_dim=8)
    ),
    "granite": lambda: tf.GraniteForCausalLM(tf.GraniteConfig(**TINY, logits_scaling=2.0)),
    "cohere": lambda: tf.CohereForCausalLM(tf.CohereConfig(**TINY, logit_scale=0.0625)),
    "phi": lambda: tf.PhiForCausalLM(tf.PhiConfig(**TINY)),
    "phi3-window": lambda: tf.Phi3ForCausalLM(tf.Phi3Config(**TINY, **WINDOW)),
    "gpt2": lambda: tf.GPT2LMHeadModel(
        tf.GPT2Config(vocab_size=101, n_embd=32, n_layer=2, n_head=4, n_positions=160)
    ),
}
PROMPT = torch.tensor([1, *range(5, 45, 3)])


def randomise(module: torch.nn.Module, seed: int = 0, std: float = 0.35) -> torch.nn.Module:
    """Give a module random weights, large enough for predictions of varied confidence."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, std, generator=generator)
    return module


def tiny_heads(heads: int = 4, hidden: int = 32, vocab: int = 101, seed: int = 1) -> MedusaHeads:
    return randomise(MedusaHeads(heads, hidden, vocab), seed)


def tiny_llama(seed: int = 0, **changes) -> LlamaForCausalLM:
    return randomise(LlamaForCausalLM(LlamaConfig(**{**TINY, **changes})), seed)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single characters, without bytes.

    Its 100 entries are four specials, the printable ASCII characters, the space and the newline.
    The tiny models have one token more.
    """
    characters = [chr(c) for c in range(33, 127)]
    entries = ["<pad>", "<s>", "</s>", "<unk>", *characters, "Ġ", "Ċ"]
    vocab = {token: number for number, token in enumerate(entries)}
    bpe = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>"))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}"
        "{{ m['role'][0] + ':' + m['content'] + '\n' }}"
        "{% endfor %}a:"
    )
    return tokenizer
