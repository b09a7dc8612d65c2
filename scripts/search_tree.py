"""Measure a model's Medusa heads on held-out text and search the best static tree from it.

    python scripts/search_tree.py --model build/demo/merged --corpus heldout.jsonl.gz --out build/demo/merged

The model answers `--prompts` of the corpus' prompts greedily; at every position of the answers each head's guesses are
ranked against what the model went on to say. A rank path's frequency is how often all of its guesses were right at once.
The tree of N nodes with the most accepted tokens per step is then simply the N - 1 most frequent paths: expected accept
length is 1 + the sum of the frequencies of the tree's paths, and a path is never more frequent than its parent.

Writes `medusa_tree.json`: "paths" from the most frequent on (a prefix of it is the best tree of that size; the decoder
`static` takes the first `nodes - 1`), their "frequency", and "head_accuracy", where entry [k][r] is how often guess r of
head k was right.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm

from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly
from bench.inputs.chat import Chat
from bench.inputs.loader import STATIC_TREE_FILE, Loaded
from train_heads import corpus_examples, distil
from training import add_corpus_flags, add_model_flags, load_model


@torch.inference_mode()
def ranks(loaded: Loaded, ids: list[int], start: int) -> torch.Tensor:
    """Rank [positions, heads] of the token that came among each head's guesses, wherever every head had one to guess."""
    heads = loaded.model.heads
    text = torch.tensor(ids, device=loaded.model.device)
    width = len(ids) - len(heads) - start
    if width <= 0:
        return torch.empty(0, len(heads), dtype=torch.long)
    hidden = loaded.model.hidden_rows(text.unsqueeze(0))[
        0, start - 1 : start - 1 + width
    ]  # each predicts a root
    found = []
    for k, logits in enumerate(heads(hidden)):  # [positions, vocab]
        target = text[start + 1 + k : start + 1 + k + width].unsqueeze(1)
        found.append((logits > logits.gather(1, target)).sum(-1))
    return torch.stack(found, dim=1).cpu()


def best_paths(
    all_ranks: torch.Tensor, topk: int, limit: int
) -> list[tuple[tuple[int, ...], float]]:
    """The `limit` most frequent rank paths with their frequencies; ties go to the shallower, then the lower ranks.

    >>> best_paths(torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0]]), topk=2, limit=3)
    [((0,), 0.75), ((0, 0), 0.5), ((1,), 0.25)]
    """
    counts: Counter[tuple[int, ...]] = Counter()
    for row in all_ranks.tolist():
        for depth, rank in enumerate(row, start=1):
            if rank >= topk:
                break
            counts[tuple(row[:depth])] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    return [(path, count / len(all_ranks)) for path, count in ordered[:limit]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    add_corpus_flags(parser, STATIC_TREE_FILE)
    parser.add_argument("--prompts", type=whole(1), default=512)
    parser.add_argument(
        "--new-tokens", type=whole(1), default=256, help="length of an answer at most"
    )
    parser.add_argument("--batch", type=whole(1), default=64)
    parser.add_argument(
        "--topk", type=whole(1), default=32, help="guesses a head that paths may take"
    )
    parser.add_argument("--nodes", type=whole(2), default=256, help="of the largest tree")
    args = parser.parse_args()
    loaded = load_model(args)
    if loaded.model.heads is None:
        raise UserError(f"{args.model!r} has no Medusa heads to measure")
    chat = Chat.of(loaded.tokenizer, args.template)
    prompts = [
        (ids[:start], start)
        for ids, start in corpus_examples(args.corpus, chat)
        if start + args.new_tokens <= loaded.model.context
    ][: args.prompts]
    args.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        answers = distil(loaded, prompts, [0.0], args.new_tokens, args.batch, Path(work), seed=0)
    if not answers:
        raise UserError(
            f"no prompt of {args.corpus} leaves room for --new-tokens {args.new_tokens} in the model's context"
        )
    measured = torch.cat(
        [ranks(loaded, ids, start) for ids, start in tqdm(answers, desc="ranking guesses")]
    )
    if not len(measured):
        raise UserError(
            "every answer is shorter than the number of heads; there is nothing to measure"
        )
    paths = best_paths(measured, args.topk, args.nodes - 1)
    accuracy = [
        [round((measured[:, k] == r).float().mean().item(), 5) for r in range(10)]
        for k in range(measured.shape[1])
    ]
    tree = {
        "positions": len(measured),
        "head_accuracy": accuracy,
        "paths": [list(path) for path, _ in paths],
        "frequency": [round(frequency, 6) for _, frequency in paths],
    }
    (args.out / STATIC_TREE_FILE).write_text(json.dumps(tree) + "\n")
    print(f"{len(measured):,} positions; top-1 by head {[row[0] for row in accuracy]}")
    for nodes in (8, 16, 32, 64, 128, 256):
        print(
            f"best static tree of {nodes:3} nodes: expected accept length {1 + sum(f for _, f in paths[: nodes - 1]):.3f}"
        )


if __name__ == "__main__":
    exit_cleanly(main)
