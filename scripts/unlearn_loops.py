"""Teach a small language model not to loop when it decodes greedily.

    python scripts/unlearn_loops.py --model build/demo/base --corpus chat.jsonl.gz --out build/demo/unlooped

Small models fall into repeating one phrase for ever at temperature 0. Such text says nothing about speculative decoding:
any head predicts a loop. Each update lets the model answer a batch of prompts greedily, takes the tokens that complete an
n-gram which the answer already holds, and lowers their probability, beside the ordinary loss on a batch of the corpus
(sequence-level unlikelihood, Welleck et al. 2020, arXiv 1908.04319). The share of repeated n-grams is printed before and
after, on prompts that are not trained on. Run the same command again to go on after an interruption.
"""

import argparse
import json
from pathlib import Path

import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoModelForCausalLM

from bench.common.arguments import positive, whole
from bench.common.errors import UserError, exit_cleanly
from bench.inputs.chat import Chat
from bench.inputs.loader import load
from train_heads import corpus_examples
from training import read_checkpoint, save_atomically


def repeats(tokens: list[int], n: int) -> list[bool]:
    """Which tokens complete an n-gram that stands earlier in the text.

    >>> repeats([1, 2, 1, 2, 1, 3], n=2)
    [False, False, False, True, True, False]
    """
    seen: set[tuple[int, ...]] = set()
    marks = []
    for end in range(1, len(tokens) + 1):
        gram = tuple(tokens[max(0, end - n) : end])
        marks.append(len(gram) == n and gram in seen)
        seen.add(gram)
    return marks


@torch.no_grad()
def greedy_answers(lm, prompts: list[list[int]], new_tokens: int, eos: int) -> list[list[int]]:
    """The model's greedy answers, each up to and with its end."""
    width = max(map(len, prompts))
    ids = torch.tensor([[eos] * (width - len(p)) + p for p in prompts], device=lm.device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=lm.device)
    lm.eval()
    made = lm.generate(
        ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, pad_token_id=eos
    )
    lm.train()
    answers = made[:, width:].tolist()
    return [answer[: answer.index(eos) + 1] if eos in answer else answer for answer in answers]


def losses(lm, rows: list[tuple[list[int], list[bool]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean next-token loss, and mean unlikelihood -log(1 - p) of the marked tokens, over rows of (tokens, marks)."""
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.tensor(
        [tokens + [-100] * (longest - len(tokens)) for tokens, _ in rows], device=lm.device
    )
    marked = torch.tensor(
        [marks + [False] * (longest - len(marks)) for _, marks in rows], device=lm.device
    )[:, 1:]
    with torch.autocast(lm.device.type, torch.bfloat16):
        logits = lm(input_ids=ids.clamp(min=0), use_cache=False).logits[:, :-1]
    log_prob = logits.float().log_softmax(-1)
    target = ids[:, 1:]
    likelihood = F.nll_loss(log_prob.flatten(0, 1), target.flatten(), ignore_index=-100)
    own = log_prob.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)[marked]
    unlikelihood = -torch.log((1 - own.exp()).clamp(min=1e-5)).sum() / marked.sum().clamp(min=1)
    return likelihood, unlikelihood


def measure(lm, prompts: list[list[int]], new_tokens: int, eos: int, n: int) -> dict[str, float]:
    """Shares over greedy answers: repeated n-grams among their tokens, and answers that do not end by themselves."""
    answers = greedy_answers(lm, prompts, new_tokens, eos)
    marks = [mark for answer in answers for mark in repeats(answer, n)]
    return {
        "repeated_ngrams": sum(marks) / len(marks),
        "unended_answers": sum(answer[-1] != eos for answer in answers) / len(answers),
        "tokens_per_answer": len(marks) / len(answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="folder of the model to begin with")
    parser.add_argument("--corpus", type=Path, required=True, help="chat JSONL (.gz allowed)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--updates", type=whole(1), default=80)
    parser.add_argument("--batch", type=whole(1), default=24, help="prompts answered an update")
    parser.add_argument("--new-tokens", type=whole(1), default=192)
    parser.add_argument("--max-prompt", type=whole(1), default=192)
    parser.add_argument(
        "--max-length",
        type=whole(1),
        default=384,
        help="longer conversations of the corpus are cut",
    )
    parser.add_argument("--ngram", type=whole(1), default=4)
    parser.add_argument(
        "--weight", type=positive, default=0.5, help="of the unlikelihood beside the ordinary loss"
    )
    parser.add_argument("--lr", type=positive, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    loaded = load(args.model, args.device, "float32")
    chat, device, eos = (
        Chat.of(loaded.tokenizer),
        loaded.model.device,
        loaded.tokenizer.eos_token_id,
    )
    lm = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).to(device)

    wanted = args.batch * (args.updates + 2)
    examples = []
    for ids, start in tqdm(corpus_examples(args.corpus, chat), desc="reading corpus", total=wanted):
        if start <= args.max_prompt:
            examples.append((ids[: args.max_length], start))
        if len(examples) == wanted:
            break
    if len(examples) < wanted:
        raise UserError(
            f"{args.corpus} has {len(examples)} prompts of at most --max-prompt tokens; {wanted} are needed"
        )
    measured_on = [ids[:start] for ids, start in examples[: args.batch]]
    examples = examples[args.batch :]

    optimizer = torch.optim.AdamW(lm.parameters(), lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    checkpoint, update = args.out / "unlearn_state.pt", 0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, device)
        lm.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        update, before = state["update"], state["before"]
    else:
        before = measure(lm, measured_on, args.new_tokens, eos, args.ngram)
    print(f"before: {before}")
    bar = tqdm(total=args.updates, initial=update, desc="unlearning loops")
    while update < args.updates:
        group = examples[update * args.batch : (update + 1) * args.batch]
        prompts = [ids[:start] for ids, start in group]
        answers = greedy_answers(lm, prompts, args.new_tokens, eos)
        looping = [
            (prompt + answer, [False] * len(prompt) + repeats(answer, args.ngram))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        corpus = [(ids, [False] * len(ids)) for ids, _ in group]
        likelihood, _ = losses(lm, corpus)
        likelihood.backward()
        _, unlikelihood = losses(lm, looping)
        (args.weight * unlikelihood).backward()
        torch.nn.utils.clip_grad_norm_(lm.parameters(), 1.0)
        for each in optimizer.param_groups:
            each["lr"] = args.lr * min(
                1.0, (update + 1) / 5, 2 * (args.updates - update) / args.updates
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        update += 1
        bar.update()
        share = sum(map(sum, (marks for _, marks in looping))) / sum(map(len, answers))
        bar.set_postfix(loss=f"{likelihood.item():.3f}", repeated=f"{share:.1%}")
        if update % 10 == 0 or update == args.updates:
            state = {
                "model": lm.state_dict(),
                "optimizer": optimizer.state_dict(),
                "update": update,
                "before": before,
            }
            save_atomically(state, checkpoint)
    bar.close()
    after = measure(lm, measured_on, args.new_tokens, eos, args.ngram)
    lm.save_pretrained(args.out / "base")
    loaded.tokenizer.save_pretrained(args.out / "base")
    (args.out / "unlearn_result.json").write_text(
        json.dumps({"before": before, "after": after}, indent=1) + "\n"
    )
    print(f"after: {after}")


if __name__ == "__main__":
    exit_cleanly(main)
