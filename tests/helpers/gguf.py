"""A tiny Llama as llama.cpp writes it: in a GGUF file."""

import struct

import pytest

from tests.helpers.models import tiny_tokenizer

HEADER = b"GGUF" + struct.pack("<IQQ", 3, 0, 0)  # Of a file without tensors.


def write_gguf(path, lm, further=None, add_entries=None):
    """A Llama in GGUF, in float32, with a byte-level tokenizer: what llama.cpp writes of one.

    further: more tensors, by name. add_entries: adds to the metadata, given the writer.
    """
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, "llama")
    config = lm.config
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokenizer = tiny_tokenizer()
    writer.add_tokenizer_model("gpt2")
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    # A merge is needed, and what it makes must be a token.
    writer.add_token_list(["ab" if token == "~" else token for token, _ in vocab])
    writer.add_token_types([1] * len(vocab))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(tokenizer.chat_template)
    if add_entries is not None:
        add_entries(writer)
    for name, tensor in (named_for_gguf(lm) | (further or {})).items():
        writer.add_tensor(name, tensor.detach().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def named_for_gguf(lm):
    """The tensors under GGUF's names. Rows of queries and keys are permuted, as llama.cpp does."""
    config, state = lm.config, lm.state_dict()
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    named = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
        "output.weight": state["lm_head.weight"],
    }
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            tensor = state[f"model.layers.{layer}.{ours}.weight"]
            if theirs in heads:
                rows = tensor.shape[0] // heads[theirs] // 2
                split = tensor.view(heads[theirs], 2, rows, -1)
                tensor = split.swapaxes(1, 2).reshape(tensor.shape).contiguous()
            named[f"blk.{layer}.{theirs}.weight"] = tensor
    return named
