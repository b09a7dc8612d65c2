"""Count which tokens a model's answers are made of, so that heads need to guess only those.

    python scripts/draft_vocabulary.py --model build/demo/merged --corpus heldout.jsonl.gz --out build/demo/merged

The model answers `--prompts` of the corpus' prompts greedily. A token's frequency is its share of those answers plus its share
of the corpus' own, which are more. Writes the `--size` most frequent to `medusa_vocabulary.json`, which decoders find beside
the model (`vocab=frequent` of `dynamic` and `conditional`; with `nodes=auto` by default).
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import write_atomically
from bench.inputs.chat import Chat
from bench.inputs.loader import VOCABULARY_FILE
from train_heads import corpus_examples, distil
from training import add_corpus_flags, add_model_flags, load_model


def most_frequent(counts: list[Counter[int]], size: int) -> list[int]:
    """The `size` tokens of the largest shares, summed over the counts; ties go to the lower token.

    >>> most_frequent([Counter({7: 3, 5: 1}), Counter({5: 10, 9: 10})], 2)
    [5, 7]
    """
    shares: Counter[int] = Counter()
    for each in counts:
        for token, count in each.items():
            shares[token] += count / each.total()
    return sorted(shares, key=lambda token: (-shares[token], token))[:size]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    add_corpus_flags(parser, VOCABULARY_FILE)
    parser.add_argument(
        "--size", type=whole(1), help="tokens to keep (default: a quarter of the vocabulary)"
    )
    parser.add_argument("--prompts", type=whole(1), default=512)
    parser.add_argument(
        "--new-tokens", type=whole(1), default=256, help="length of an answer at most"
    )
    parser.add_argument("--batch", type=whole(1), default=64)
    args = parser.parse_args()
    loaded = load_model(args)
    if loaded.model.heads is None:
        raise UserError(
            f"{args.model!r} has no Medusa heads; a draft vocabulary is what heads guess from"
        )
    size = args.size or loaded.model.vocab // 4
    if size > loaded.model.vocab:
        raise UserError(f"--size is {size}, but the vocabulary has {loaded.model.vocab} tokens")
    chat = Chat.of(loaded.tokenizer, args.template)
    corpus: Counter[int] = Counter()
    prompts = []
    for ids, start in tqdm(corpus_examples(args.corpus, chat), desc="reading corpus"):
        corpus.update(ids[start:])
        if start + args.new_tokens <= loaded.model.context and len(prompts) < args.prompts:
            prompts.append((ids, start))
    args.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as work:
        answers = distil(loaded, prompts, [0.0], args.new_tokens, args.batch, Path(work), seed=0)
    if not answers:
        raise UserError(
            f"no prompt of {args.corpus} leaves room for --new-tokens {args.new_tokens} in the model's context"
        )
    own = Counter(token for ids, start in answers for token in ids[start:])
    tokens = most_frequent([own, corpus], size)
    write_atomically(args.out / VOCABULARY_FILE, json.dumps({"tokens": tokens}) + "\n")
    for name, counts in (("its own answers", own), ("the corpus' answers", corpus)):
        covered = sum(counts[token] for token in tokens) / counts.total()
        print(
            f"{len(tokens)} tokens are {100 * covered:.1f} % of {name} ({counts.total():,} tokens)"
        )
    print(args.out / VOCABULARY_FILE)


if __name__ == "__main__":
    exit_cleanly(main)
