"""Count the tokens of a model's answers, so that heads need to guess only the frequent ones.

    python scripts/draft_vocabulary.py --model build/demo/merged --corpus heldout.jsonl.gz \\
        --out build/demo/merged

The model answers `--prompts` of the corpus' prompts greedily. A token's frequency is its share of
these answers plus its share of the corpus' own answers, which are more numerous.

Writes the `--size` most frequent tokens to `medusa_vocabulary.json`. Decoders find it beside the
model: `vocab=frequent` of `dynamic`, `conditional`, `hydra` and `eagle`.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import VocabularySettings


def main() -> None:
    settings = parse_settings("draft_vocabulary.py", __doc__, VocabularySettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.frequent_tokens import FILE, count_frequent_tokens

    found = count_frequent_tokens(settings)
    counted = {"its own answers": found.own, "the corpus' answers": found.corpus}
    for name, counts in counted.items():
        share = 100 * found.share_of(counts)
        print(f"{len(found.tokens)} tokens are {share:.1f} % of {name} ({counts.total():,} tokens)")
    print(settings.out / FILE)


if __name__ == "__main__":
    exit_cleanly(main)
