"""Train Medusa heads for any causal language model (MEDUSA-1: the model itself stays frozen).

    python scripts/train_heads.py --model lmsys/vicuna-7b-v1.3 --template vicuna_v1.1 --corpus chat.jsonl --out my-heads
    python scripts/train_heads.py --model build/demo/base --corpus chat.jsonl.gz --distill 4000 --out build/demo --merge

Head k learns the token k + 2 places after the hidden row it reads, at weight `--decay`^k. Where the model has heads of this
shape, they are trained further; else they start from its output projection and residual blocks of zeros. Heads must predict
the *model*, so with `--distill N` the model first answers N of the corpus' prompts itself, in batches and in turn at each of
`--temperatures`, and the heads learn from those answers. Without it they learn from the corpus' own answers.

The result, below `--out`, is a Medusa-1 folder (`medusa_lm_head.safetensors` and a config that names the model), or with
`--merge` a Medusa-2 folder (the model and `medusa_head.*` in one checkpoint). Run the same command again to go on after an
interruption.
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from bench.common.arguments import positive, temperatures, whole
from bench.common.errors import UserError, exit_cleanly
from bench.common.files import parse_json, write_atomically
from bench.inputs.chat import Chat
from bench.inputs.loader import Loaded
from decoders.model.heads import MERGED_PREFIX, MedusaHeads
from training import (
    add_model_flags,
    learning_rate,
    load_model,
    read_chats,
    read_checkpoint,
    save_atomically,
)

Example = tuple[list[int], int]  # token ids, and where the answer begins


def corpus_examples(path: Path, chat: Chat) -> Iterator[Example]:
    """Every assistant turn of the corpus as the continuation of its prompt."""
    for _, turns in read_chats(path):
        asked = [turn["content"] for turn in turns if turn["role"] == "user"]
        answered = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        for at, answer in enumerate(answered[: len(asked)]):
            prompt = chat.prompt(asked[: at + 1], answered[:at])
            ids = chat.tokenizer(answer, add_special_tokens=False).input_ids
            yield prompt + ids + [chat.tokenizer.eos_token_id], len(prompt)


@torch.inference_mode()
def distil(
    loaded: Loaded,
    examples: list[Example],
    temperatures: list[float],
    new_tokens: int,
    batch: int,
    out: Path,
    seed: int,
) -> list[Example]:
    """The model's own answers to the examples' prompts; a file in `out` keeps them, for these very settings."""
    lm, tokenizer = loaded.model.lm, loaded.tokenizer
    pad = tokenizer.eos_token_id
    # Prompts of like length share a batch, so that little of it is padding.
    prompts = sorted((ids[:start] for ids, start in examples), key=len)
    settings = json.dumps([loaded.identity, temperatures, new_tokens, batch, seed, prompts])
    cache = out / f"own_answers-{sha256(settings.encode()).hexdigest()[:12]}.jsonl"
    done: list[Example] = []
    if cache.exists():
        whole = cache.read_text().split("\n")[:-1]  # a torn last line has no newline
        if len(whole) < len(prompts):
            whole = whole[: len(whole) // batch * batch]  # a batch that was cut off is made again
        try:
            done = [tuple(parse_json(line.encode())) for line in whole]
        except (ValueError, TypeError) as error:
            raise UserError(
                f"{cache} is damaged: {error}; remove it to have the answers made again"
            ) from error
        write_atomically(cache, "".join(json.dumps(row) + "\n" for row in done))
    bar = tqdm(total=len(prompts), initial=len(done), desc="own answers", unit="answer")
    with cache.open("a") as kept:
        for number in range(math.ceil(len(done) / batch), math.ceil(len(prompts) / batch)):
            torch.manual_seed(seed + number)
            group = prompts[number * batch : (number + 1) * batch]
            width = max(map(len, group))
            ids = torch.tensor(
                [[pad] * (width - len(p)) + p for p in group], device=loaded.model.device
            )
            mask = torch.tensor(
                [[0] * (width - len(p)) + [1] * len(p) for p in group], device=loaded.model.device
            )
            temperature = temperatures[number % len(temperatures)]
            options = (
                {"do_sample": True, "temperature": temperature, "top_k": 0}
                if temperature
                else {"do_sample": False}
            )
            made = lm.generate(
                ids, attention_mask=mask, max_new_tokens=new_tokens, pad_token_id=pad, **options
            )
            rows = []
            for prompt, answer in zip(group, made[:, width:].tolist(), strict=True):
                ends = [at for at, token in enumerate(answer) if token in loaded.eos]
                rows.append((prompt + answer[: ends[0] + 1 if ends else None], len(prompt)))
            kept.write("".join(json.dumps(row) + "\n" for row in rows))
            kept.flush()
            done += rows
            bar.update(len(rows))
    bar.close()
    return done


def batches(examples: list[Example], batch_tokens: int, seed: int) -> Iterator[list[Example]]:
    """Endless batches of about `batch_tokens` tokens with padding, in an order that `seed` fixes."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        # Sorting within large shuffled chunks keeps rows of a batch alike in length and the batches random.
        order = torch.randperm(len(examples), generator=generator).tolist()
        groups: list[list[Example]] = []
        for chunk in range(0, len(order), 1024):
            group: list[Example] = []
            for at in sorted(order[chunk : chunk + 1024], key=lambda i: len(examples[i][0])):
                if group and (len(group) + 1) * len(examples[at][0]) > batch_tokens:
                    groups.append(group)
                    group = []
                group.append(examples[at])
            groups.append(group)
        for at in torch.randperm(len(groups), generator=generator).tolist():
            yield groups[at]


def heads_loss(
    loaded: Loaded, heads: MedusaHeads, group: list[Example], autocast: bool = False
) -> torch.Tensor:
    """Mean cross-entropy [heads] over the answers' positions of one batch; with `autocast` in bfloat16 products."""
    device = loaded.model.device
    longest = max(len(ids) for ids, _ in group) + len(
        heads
    )  # so that every head has a (maybe absent) target everywhere
    ids = torch.zeros(len(group), longest, dtype=torch.long)
    answer = torch.zeros(len(group), longest, dtype=torch.bool)
    for row, (tokens, start) in enumerate(group):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        answer[row, start : len(tokens)] = True
    ids, answer = ids.to(device), answer.to(device)
    bfloat16 = torch.autocast(device.type, torch.bfloat16, enabled=autocast)
    with bfloat16:
        hidden = loaded.model.hidden_rows(
            ids
        )  # [batch, length, hidden]; right padding is never looked at
    losses = []
    width = longest - len(heads) - 1
    used = answer[:, 1 : 1 + width]  # a row is used where the root that follows it is in the answer
    with bfloat16:
        logits = heads(hidden[:, :width][used].float())  # [heads, rows, vocab]
    for k in range(len(heads)):
        target = ids[:, k + 2 : k + 2 + width].masked_fill(~answer[:, k + 2 : k + 2 + width], -100)[
            used
        ]
        losses.append(F.cross_entropy(logits[k].float(), target, ignore_index=-100))
    return torch.stack(losses)


def save(
    loaded: Loaded, heads: MedusaHeads, name: str, out: Path, merge: bool, dtype: torch.dtype
) -> None:
    """Write the heads as a Medusa-1 folder, or merged with the model as a Medusa-2 folder."""
    out.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.to(dtype).cpu().contiguous() for key, value in heads.published().items()}
    config = {"medusa_num_heads": len(heads), "medusa_num_layers": len(heads.block_weight)}
    if not merge:
        base = str(Path(name).resolve()) if Path(name).is_dir() else name
        save_file(tensors, out / "medusa_lm_head.safetensors", metadata={"format": "pt"})
        (out / "config.json").write_text(
            json.dumps({"base_model_name_or_path": base, **config}, indent=1) + "\n"
        )
        return
    lm = loaded.model.lm
    lm.config.update({**config, "dtype": str(dtype).removeprefix("torch.")})
    lm.config.save_pretrained(out)
    lm.generation_config.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
    own = {
        value.data_ptr(): key for key, value in reversed(lm.state_dict().items())
    }  # tied tensors are written once
    own = {key: lm.state_dict()[key].to(dtype).cpu().contiguous() for key in own.values()}
    merged = own | {MERGED_PREFIX + key: value for key, value in tensors.items()}
    save_file(merged, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="chat JSONL (.gz allowed)")
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the result and of checkpoints"
    )
    parser.add_argument(
        "--template", help="FastChat conversation name; default: the tokenizer's own chat template"
    )
    parser.add_argument("--heads", type=whole(1), default=4)
    parser.add_argument("--layers", type=whole(1), default=1, help="residual blocks a head")
    parser.add_argument("--tokens", type=positive, default=4e6, help="answer tokens to train on")
    parser.add_argument(
        "--minutes", type=positive, help="end training after so many minutes, fully decayed"
    )
    parser.add_argument(
        "--examples", type=whole(1), default=20000, help="answers of the corpus to draw from"
    )
    parser.add_argument(
        "--distill",
        type=whole(0),
        default=0,
        metavar="N",
        help="answers of the model itself to learn from",
    )
    parser.add_argument(
        "--temperatures",
        type=temperatures,
        default="0,0.7",
        help="of the model's own answers, taken in turn",
    )
    parser.add_argument(
        "--distill-tokens",
        type=whole(1),
        default=256,
        help="length of the model's own answers at most",
    )
    parser.add_argument("--distill-batch", type=whole(1), default=64)
    parser.add_argument("--batch-tokens", type=whole(1), default=8192)
    parser.add_argument("--max-length", type=whole(1), default=1024, help="longer examples are cut")
    parser.add_argument("--lr", type=positive, default=1e-3)
    parser.add_argument(
        "--decay", type=positive, default=0.8, help="weight of head k's loss is this to the k"
    )
    parser.add_argument("--merge", action="store_true", help="write one merged Medusa-2 checkpoint")
    parser.add_argument(
        "--save-dtype", choices=("float16", "bfloat16", "float32"), default="float16"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    loaded = load_model(args)
    args.out.mkdir(parents=True, exist_ok=True)
    chat = Chat.of(loaded.tokenizer, args.template)
    wanted = max(args.examples, args.distill)
    examples = []
    for ids, start in tqdm(corpus_examples(args.corpus, chat), desc="reading corpus", total=wanted):
        if start < args.max_length - args.heads - 2:
            examples.append((ids[: args.max_length], start))
        if len(examples) >= wanted:
            break
    if not examples:
        raise UserError(f"no answer of {args.corpus} fits in --max-length {args.max_length}")
    if args.distill:
        examples = distil(
            loaded, examples[: args.distill], args.temperatures, args.distill_tokens, args.distill_batch,
            args.out, args.seed,
        )  # fmt: skip

    projection = loaded.model.lm.get_output_embeddings().weight
    heads = MedusaHeads(args.heads, projection.shape[1], loaded.model.vocab, args.layers).to(
        projection.device
    )
    own = loaded.model.heads.state_dict() if loaded.model.heads is not None else {}
    if all(
        name in own and own[name].shape == value.shape for name, value in heads.state_dict().items()
    ):
        heads.load_state_dict(own)
    else:
        with torch.no_grad():
            heads.out_weight.copy_(projection.expand_as(heads.out_weight))
    optimizer = torch.optim.AdamW(
        heads.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0
    )
    checkpoint, seen, step = args.out / "heads_state.pt", 0, 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, projection.device)
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        seen, step = state["seen"], state["step"]

    weight = torch.tensor([args.decay**k for k in range(args.heads)], device=projection.device)
    source = batches(examples, args.batch_tokens, args.seed)
    for _ in range(step):
        next(source)
    total, started, started_at, last_save, average = (
        args.tokens,
        time.monotonic(),
        seen,
        time.monotonic(),
        None,
    )
    bar = tqdm(total=int(total), initial=seen, unit="tok", unit_scale=True, desc="heads")
    while seen < total:
        group = next(source)
        losses = heads_loss(loaded, heads, group, autocast=True)
        (losses.nan_to_num() * weight).sum().backward()
        for each in optimizer.param_groups:
            each["lr"] = args.lr * learning_rate(seen, total, warmup=20 * args.batch_tokens)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        used = sum(len(ids) - start for ids, start in group)
        seen, step = seen + used, step + 1
        bar.update(used)
        current = losses.detach().nan_to_num()
        average = current if average is None else 0.95 * average + 0.05 * current
        bar.set_postfix_str(
            "loss by head " + " ".join(f"{value:.2f}" for value in average.tolist())
        )
        if args.minutes and step > 10:
            speed = (seen - started_at) / (time.monotonic() - started)
            total = min(args.tokens, started_at + speed * args.minutes * 60)
        if time.monotonic() - last_save > 120 or seen >= total:
            state = {
                "heads": heads.state_dict(),
                "optimizer": optimizer.state_dict(),
                "seen": seen,
                "step": step,
            }
            save_atomically(state, checkpoint)
            last_save = time.monotonic()
    bar.close()
    result = args.out / ("merged" if args.merge else "medusa")
    save(loaded, heads, args.model, result, args.merge, getattr(torch, args.save_dtype))
    if average is None:
        print(f"{result}: {args.heads} heads, trained before on {seen:,} answer tokens")
        return
    print(
        f"{result}: {args.heads} heads, {seen:,} answer tokens, loss by head {[round(v, 3) for v in average.tolist()]}"
    )


if __name__ == "__main__":
    exit_cleanly(main)
