"""Train the tokenizer and the base language model of the embedded demo.

    python scripts/train_demo.py --corpus chat.jsonl.gz --heldout heldout.jsonl.gz \\
        --out build/demo
    python scripts/train_heads.py --model build/demo/base --corpus chat.jsonl.gz \\
        --out build/demo --merge

The corpus is chat JSONL, one conversation a line:

    {"source": str, "turns": [{"role": "user" | "assistant", "content": str}, ...]}

The result, `<out>/base`, is an ordinary Hugging Face folder of a small Llama, with a byte-level BPE
tokenizer and a chat template. All work in `<out>` is saved on the way. The same command goes on
where it stopped; with more `--tokens` it trains further. `--minutes` limits a session, and the
learning rate decays to zero within it.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import DemoSettings


def main() -> None:
    settings = parse_settings("train_demo.py", __doc__, DemoSettings)
    settings.check()
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.demo_training import train_demo

    result = train_demo(settings)
    print(
        f"{result.folder}: {result.seen:,} tokens, held-out loss {result.heldout_loss:.4f} nats a "
        "token on packed rows (see also perplexity.py)"
    )


if __name__ == "__main__":
    exit_cleanly(main)
