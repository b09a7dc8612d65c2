"""What a user should know about a model that can be used."""

from collections.abc import Iterator

from transformers import GenerationConfig

from bench.common.files import shown
from decoders.model.model import Model

# Entries of a generation_config.json that choose no token.
CHOOSE_NOTHING = (
    "bos_token_id", "eos_token_id", "pad_token_id", "use_cache", "cache_implementation",
    "transformers_version", "output_attentions", "output_hidden_states", "output_logits",
    "output_scores", "return_dict_in_generate",
)  # fmt: skip


def warnings_about(model: Model, asked: GenerationConfig) -> Iterator[str]:
    """Warnings of one line each. asked: the checkpoint's generation_config.json."""
    positions = getattr(model.lm.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and model.context < positions:
        yield (
            f"this model computes its positions in another way where a text is longer than "
            f"{model.context} tokens (as LongRoPE and dynamic NTK do), and a tree would then "
            f"differ from plain text; its context of {positions} tokens ends there"
        )
    # transformers marks a tokenizer so where it has found a wrong pattern, and has not mended it.
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if getattr(backend, "fix_mistral_regex", None) is False:
        yield (
            "transformers says that this tokenizer splits text by a wrong pattern, so that prompts "
            "have other tokens than those that the model was trained with; take a tokenizer.json "
            "from a newer revision of the model"
        )
    requests = {
        name: value
        for name, value in asked.to_diff_dict().items()
        if name not in CHOOSE_NOTHING and not name.startswith("_") and not _is_neutral(value)
    }
    if requests:
        listed = ", ".join(f"{name}={shown(value)}" for name, value in sorted(requests.items()))
        yield (
            f"the model's generation_config.json asks for {listed}; no decoder obeys it, not even "
            "hf-greedy: the flags of the run decide"
        )


def _is_neutral(value: object) -> bool:
    """Whether a request changes nothing: switched off, or a factor or a probability of 1."""
    return value is not True and value in (None, 0, 1)
