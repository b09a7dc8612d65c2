"""Train the tokenizer and the base language model of the embedded demo.

    python scripts/train_demo.py --corpus chat.jsonl.gz --heldout heldout.jsonl.gz --out build/demo
    python scripts/train_heads.py --model build/demo/base --corpus chat.jsonl.gz --out build/demo/medusa --merge

The corpus is chat JSONL: {"source": str, "turns": [{"role": "user" | "assistant", "content": str}, ...]} a line. The
result, `<out>/base`, is an ordinary Hugging Face folder of a small Llama with a byte-level BPE tokenizer and a chat
template. Everything below `<out>` is a checkpoint: run the same command again and it goes on where it stopped; raise
`--tokens` and it trains on. `--minutes` ends a sitting early, decaying the learning rate to zero inside it.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from tokenizers.decoders import ByteLevel
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.common.arguments import positive, whole
from bench.common.errors import UserError, exit_cleanly
from training import learning_rate, read_chats, read_checkpoint, save_atomically

SPECIAL = ["<|bos|>", "<|end|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# How often a conversation of a source is seen per epoch (1 where not named). Assistant-style answers are what MT-Bench
# asks for; the down-weighted sources are terse, or chit-chat, or long runs of one register.
MIXTURE = {
    "oasst-eval": 1.5, "self-dialogue": 0.3, "natural-instructions": 0.3, "standardebooks": 0.6, "tldr-pages": 0.5,
    "scitldr": 0.5, "nl2bash": 0.5, "english-wordnet": 0.5, "synthetic-persona-chat": 0.5, "qmsum": 0.3,
    "taskmaster4": 0.5, "wikisql": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Corpus:
    """Tokenized conversations, flat: conversation i is tokens[starts[i]:starts[i + 1]], weight[i] times an epoch."""

    tokens: np.ndarray  # [all tokens] uint16
    starts: np.ndarray  # [conversations + 1]
    weight: np.ndarray  # [conversations]

    def epoch(self, seed: int, epoch: int) -> np.ndarray:
        """All tokens of one epoch in that epoch's own order; the same seed and epoch always give the same stream."""
        rng = np.random.default_rng([seed, epoch])
        times = np.floor(self.weight + rng.random(len(self.weight))).astype(
            int
        )  # 1.5 -> once or twice
        order = rng.permutation(np.repeat(np.arange(len(times)), times))
        return np.concatenate([self.tokens[self.starts[i] : self.starts[i + 1]] for i in order])


def train_tokenizer(corpus: Path, vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: any Unicode text survives a round trip; digits are single tokens, as in Llama."""
    bpe = Tokenizer(models.BPE())
    # At most one leading space joins a word, so runs of indentation become their own tokens and code stays short.
    split = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    sample = (
        turn["content"]
        for i, (_, turns) in enumerate(read_chats(corpus))
        if i % 3 == 0
        for turn in turns
    )
    bpe.train_from_iterator(sample, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|bos|>", eos_token="<|end|>", model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def encode(path: Path, tokenizer, cache: Path) -> Corpus:
    """Tokenize a whole chat file with the chat template, once; later sittings read `cache`."""
    if not cache.exists():
        chats, sources = [], []
        for source, turns in tqdm(read_chats(path), desc=f"reading {path.name}", unit=" chats"):
            chats.append(tokenizer.apply_chat_template(turns, tokenize=False))
            sources.append(source)
        if not chats:
            raise UserError(f"{path} has no conversation in it")
        ids = []
        for at in tqdm(range(0, len(chats), 2000), desc="tokenizing"):
            ids += tokenizer(chats[at : at + 2000], add_special_tokens=False)["input_ids"]
        weight = [
            next((w for prefix, w in MIXTURE.items() if s.startswith(prefix)), 1.0) for s in sources
        ]
        np.savez(
            cache,
            tokens=np.concatenate([np.array(i, dtype=np.uint16) for i in ids]),
            starts=np.cumsum([0] + [len(i) for i in ids]),
            weight=np.array(weight),
        )
    with np.load(cache) as saved:
        return Corpus(saved["tokens"], saved["starts"], saved["weight"])


def optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms (each where it is known to work)."""
    blocks = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(blocks, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, stream: np.ndarray, length: int, device: str) -> float:
    """Mean next-token loss in nats over the stream cut into rows of `length` tokens."""
    rows = torch.from_numpy(
        stream[: len(stream) // length * length].reshape(-1, length).astype(np.int64)
    )
    model.eval()
    losses = [model(input_ids=r.to(device), labels=r.to(device)).loss.item() for r in rows.split(4)]
    model.train()
    return float(np.average(losses, weights=[len(r) for r in rows.split(4)]))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--corpus", type=Path, required=True, help="chat JSONL to train on (.gz allowed)"
    )
    parser.add_argument(
        "--heldout", type=Path, required=True, help="chat JSONL for the held-out loss"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="work folder: checkpoints, caches and the result"
    )
    parser.add_argument(
        "--tokens", type=positive, default=24e6, help="tokens to train on, all sittings together"
    )
    parser.add_argument(
        "--minutes", type=positive, help="end this sitting after so many minutes, fully decayed"
    )
    parser.add_argument("--vocab", type=whole(256 + len(SPECIAL)), default=4096)
    parser.add_argument("--layers", type=whole(1), default=6)
    parser.add_argument("--hidden", type=whole(1), default=256)
    parser.add_argument(
        "--context", type=whole(1), default=2048, help="max_position_embeddings of the model"
    )
    parser.add_argument(
        "--seq",
        type=whole(1),
        default=1024,
        help="tokens a row; the last tenth trains on --context",
    )
    parser.add_argument("--batch-tokens", type=whole(1), default=8192)
    parser.add_argument("--lr", type=positive, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--no-compile", action="store_true", help="skip torch.compile (about 0.6x the speed)"
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    base, checkpoint = args.out / "base", args.out / "train_state.pt"

    if (base / "tokenizer.json").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    else:
        tokenizer = train_tokenizer(args.corpus, args.vocab, args.context)
        tokenizer.save_pretrained(base)
    corpus = encode(args.corpus, tokenizer, args.out / "corpus.npz")
    heldout = encode(args.heldout, tokenizer, args.out / "heldout.npz")

    torch.manual_seed(args.seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=args.hidden, intermediate_size=args.hidden * 8 // 3 // 16 * 16,
        num_hidden_layers=args.layers, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        max_position_embeddings=args.context, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(args.device)
    opts = optimizers(model, args.lr)
    seen = 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, args.device)
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["opts"], strict=True):
            opt.load_state_dict(saved)
        seen = state["seen"]

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(args.device, torch.bfloat16):
            hidden = model.model(ids, use_cache=False).last_hidden_state[:, :-1]
            return torch.nn.functional.cross_entropy(
                model.lm_head(hidden).flatten(0, 1), ids[:, 1:].flatten()
            )

    step_loss = loss_of if args.no_compile else torch.compile(loss_of)

    def save() -> None:
        state = {"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "seen": seen}
        save_atomically(state, checkpoint)

    total = args.tokens
    started = last_save = time.monotonic()
    started_at = seen
    epoch, stream, before = (
        -1,
        np.empty(0, np.uint16),
        0,
    )  # `before`: tokens of the epochs already finished
    average = None
    bar = tqdm(total=int(total), initial=seen, unit="tok", unit_scale=True, desc="base")
    while seen < total:
        if args.minutes and seen > started_at + 20 * args.batch_tokens:
            # The sitting's end is a time, the schedule's a token count: translate by the speed measured so far.
            speed = (seen - started_at) / (time.monotonic() - started)
            total = min(args.tokens, started_at + speed * args.minutes * 60)
        while seen - before >= len(stream):
            before += len(stream)
            epoch += 1
            stream = corpus.epoch(args.seed, epoch)
            stream = stream[
                : len(stream) // args.batch_tokens * args.batch_tokens
            ]  # whole batches only
        length = args.context if seen > 0.9 * total else args.seq
        rows = stream[seen - before :][: args.batch_tokens].reshape(-1, length)
        loss = step_loss(torch.from_numpy(rows.astype(np.int64)).to(args.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = args.lr * learning_rate(seen, total, warmup=100 * args.batch_tokens)
            opt.step()
            opt.zero_grad(set_to_none=True)
        seen += args.batch_tokens
        bar.update(args.batch_tokens)
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} at {seen:,} tokens; start again with a lower --lr"
            )
        average = value if average is None else 0.98 * average + 0.02 * value
        bar.set_postfix(loss=f"{average:.3f}")
        if time.monotonic() - last_save > 300:
            save()
            last_save = time.monotonic()
    bar.close()
    save()
    model.save_pretrained(base)
    loss = held_out_loss(model, heldout.epoch(0, 0), args.seq, args.device)
    result = {"tokens": seen, "heldout_loss_nats": loss}
    (args.out / "base_result.json").write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{base}: {seen:,} tokens, held-out loss {loss:.4f} nats a token on packed rows (see also perplexity.py)"
    )


if __name__ == "__main__":
    exit_cleanly(main)
