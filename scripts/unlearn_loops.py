"""Teach a small language model not to loop when it decodes greedily.

    python scripts/unlearn_loops.py --model build/demo/base --corpus chat.jsonl.gz \\
        --out build/demo/unlooped

At temperature 0 small models repeat one phrase for ever. Such text says nothing about speculative
decoding, as any head predicts a loop. In each update the model answers a batch of prompts greedily.
Tokens that complete an n-gram which the answer already holds are made less likely, beside the
ordinary loss on a batch of the corpus (sequence-level unlikelihood, Welleck et al. 2020, arXiv
1908.04319).

The share of repeated n-grams is printed before and after, on prompts that are not trained on. The
same command goes on after an interruption.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import LoopsSettings


def main() -> None:
    settings = parse_settings("unlearn_loops.py", __doc__, LoopsSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.loops import Unlearning

    unlearning = Unlearning(settings)
    print(f"before: {unlearning.before}")
    print(f"after: {unlearning.run()}")


if __name__ == "__main__":
    exit_cleanly(main)
