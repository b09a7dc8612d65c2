"""Perplexity of a model on held-out conversations.

    python scripts/perplexity.py --model demo --corpus heldout.jsonl.gz

Every conversation is rendered with the chat template and read from its beginning, cut at the model's context. Perplexity is
exp of the mean loss a token, over all tokens but each conversation's first; bits per byte is the same total over the bytes of
the text, which models with other tokenizers can be compared by.
"""

import argparse
import math
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm

from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly
from training import add_model_flags, load_model, read_chats


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="chat JSONL (.gz allowed)")
    parser.add_argument("--limit", type=whole(1), help="only the first so many conversations")
    args = parser.parse_args()
    loaded = load_model(args)
    nats = tokens = text_bytes = 0
    for turns in tqdm(
        [turns for _, turns in read_chats(args.corpus) if turns][: args.limit], desc="reading"
    ):
        text = loaded.tokenizer.apply_chat_template(turns, tokenize=False)
        ids = loaded.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids[
            :, : loaded.model.context
        ]
        ids = ids.to(loaded.model.device)
        logits = loaded.model.lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
        nats += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
        text_bytes += len(loaded.tokenizer.decode(ids[0], skip_special_tokens=True).encode())
    if not tokens:
        raise UserError(f"{args.corpus} has no conversation to read")
    print(
        f"{tokens:,} tokens: {nats / tokens:.4f} nats a token, perplexity {math.exp(nats / tokens):.2f}, "
        f"{nats / math.log(2) / text_bytes:.3f} bits per byte"
    )


if __name__ == "__main__":
    exit_cleanly(main)
