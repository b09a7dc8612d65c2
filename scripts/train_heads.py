"""Train heads for any causal language model, which itself stays frozen.

    python scripts/train_heads.py --model lmsys/vicuna-7b-v1.3 --template vicuna_v1.1 \\
        --corpus chat.jsonl --out my-heads
    python scripts/train_heads.py --model build/demo/base --corpus chat.jsonl.gz --distill 4000 \\
        --out build/demo --merge

`--kind` says which: `medusa` (MEDUSA-1), `hydra`, whose heads see the guesses before them, or
`eagle`, one decoder layer. All learn from the same answers, for the same number of tokens. Medusa's
and Hydra's head k reads a hidden state and learns the token k + 2 places after it. Its loss has the
weight `--decay`^k. Where the model has Medusa heads of this shape, these are trained further.

Heads must predict the model, not the corpus. With `--distill N` the model first answers N of the
corpus' prompts itself, in batches, with each of `--temperatures` in turn, and the heads learn from
these answers. Without it they learn from the corpus' own answers.

The result is a folder below `--out`, named after the kind: the heads' file, and a config that names
the model. With `--merge`, Medusa heads and the model are one Medusa-2 checkpoint, in the folder
`merged`. The same command goes on after an interruption.
"""

from bench.common.errors import exit_cleanly
from settings.command_line import parse_settings
from settings.training import HeadsSettings


def main() -> None:
    settings = parse_settings("train_heads.py", __doc__, HeadsSettings)
    # Imported late: torch takes seconds to load, and a wrong flag should be told at once.
    from training.heads_training import train_heads

    result = train_heads(settings)
    heads = f"{result.folder}: {result.title}, {result.parameters:,} parameters"
    if result.loss is None:
        print(f"{heads}, trained before on {result.seen:,} answer tokens")
    else:
        loss = [round(value, 3) for value in result.loss]
        print(
            f"{heads}, {result.seen:,} answer tokens in {result.seconds / 60:.1f} minutes, "
            f"{result.measures} {loss}"
        )


if __name__ == "__main__":
    exit_cleanly(main)
