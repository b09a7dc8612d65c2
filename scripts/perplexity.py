"""Perplexity of a model on held-out conversations.

    python scripts/perplexity.py --model demo --corpus heldout.jsonl.gz

Every conversation goes through the chat template and is read from its beginning, cut at the model's
context. Perplexity is exp of the mean loss a token, over all tokens but each conversation's first.
Bits per byte are the same loss over the bytes of the text. They compare models with different
tokenizers.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import PerplexitySettings


def main() -> None:
    settings = parse_settings("perplexity.py", __doc__, PerplexitySettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.perplexity import held_out_loss

    loss = held_out_loss(settings)
    print(
        f"{loss.tokens:,} tokens: {loss.nats_per_token:.4f} nats a token, perplexity "
        f"{loss.perplexity:.2f}, {loss.bits_per_byte:.3f} bits per byte"
    )


if __name__ == "__main__":
    exit_cleanly(main)
