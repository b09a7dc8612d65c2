"""Measure a model's Medusa heads on held-out text, and search the best static tree for it.

    python scripts/search_tree.py --model build/demo/merged --corpus heldout.jsonl.gz \\
        --out build/demo/merged

The model answers `--prompts` of the corpus' prompts greedily. At every position of the answers,
each head's guesses are ranked, and the ranks of the tokens that the model went on to say are
counted. A rank path's frequency is how often all of its guesses were right at once. The best tree
of N nodes is the N - 1 most frequent paths.

Writes `medusa_tree.json`:

    paths           from the most frequent on; the decoder `static` takes the first `nodes - 1`
    frequency       how often all guesses of each path were right
    head_accuracy   entry [k][r] is how often guess r of head k was right
    positions       the number of positions that were measured
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import TreeSearchSettings

SHOWN_SIZES = (8, 16, 32, 64, 128, 256)  # Nodes.


def main() -> None:
    settings = parse_settings("search_tree.py", __doc__, TreeSearchSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.tree_search import search_tree

    found = search_tree(settings)
    best = [accuracy[0] for accuracy in found.head_accuracy]
    print(f"{found.positions:,} positions; top-1 by head {best}")
    largest = 1 + len(found.paths)
    for nodes in [*(size for size in SHOWN_SIZES if size < largest), largest]:
        tokens = found.tokens_per_step(nodes)
        print(f"best static tree of {nodes:3} nodes: {tokens:.3f} tokens a step on these answers")


if __name__ == "__main__":
    exit_cleanly(main)
