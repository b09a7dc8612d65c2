"""Finds the best static tree of a model, from how often its heads' guesses are right.

A rank path (0, 2) takes the best guess of head 0 and, after it, the third best of head 1. Its
frequency is how often all of its guesses are right at once, at any position of an answer. A step at
a random position commits 1 token plus the sum of the frequencies of its tree's paths, on average,
and no path is more frequent than its parent. So the best tree of N nodes is the N - 1 most frequent
paths.
"""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from bench.common.errors import UserError
from bench.common.files import write_atomically
from bench.inputs.loader import Loaded
from decoders.static.decoder import FILE
from decoders.tree import RankPath
from settings.training import TreeSearchSettings
from training.corpus import corpus_examples, no_room
from training.distillation import greedy_answers
from training.models import load_model_with_heads, with_chat

MOST_RANKS = 10  # Guesses of each head whose accuracy is written down.


@dataclass(frozen=True)
class TreeSearch:
    """Measurements of a model's heads, and the tree that follows from them."""

    positions: int  # Steps at which the heads were measured.
    # [heads][MOST_RANKS] how often the guess of a rank was right.
    head_accuracy: list[list[float]]
    paths: list[RankPath]  # From the most frequent on; a parent before its children.
    frequency: list[float]  # [paths]
    ranks: list[list[list[int]]]  # [answers][positions][heads], as `ranks_of` has them.

    def tokens_per_step(self, nodes: int) -> float:
        """Tokens that a step commits on these answers, with the best tree of so many nodes."""
        return tokens_per_step(self.ranks, self.paths[: nodes - 1])

    def content(self) -> dict[str, object]:
        """As the JSON file has it."""
        return {
            "positions": self.positions,
            "head_accuracy": self.head_accuracy,
            "paths": [list(path) for path in self.paths],
            "frequency": [round(each, 6) for each in self.frequency],
        }


def search_tree(settings: TreeSearchSettings) -> TreeSearch:
    """Measure the heads on greedy answers, and write the tree. UserError says what does not fit."""
    loaded, chat = with_chat(load_model_with_heads(settings, " to measure"), settings.template)
    with_room = (
        (ids[:start], start)
        for ids, start in corpus_examples(settings.corpus, chat)
        if start + settings.new_tokens <= loaded.model.context
    )
    prompts = list(islice(with_room, settings.prompts))
    settings.out.mkdir(parents=True, exist_ok=True)
    answers = greedy_answers(loaded, prompts, settings.new_tokens, settings.batch)
    if not answers:
        raise no_room(settings.corpus, settings.new_tokens)
    bar = tqdm(answers, desc="ranking guesses")
    by_answer = [ranks_of(loaded, ids, start) for ids, start in bar]
    ranks = torch.cat(by_answer)
    if not len(ranks):
        raise UserError(
            "every answer is shorter than the number of heads; there is nothing to measure"
        )
    ordered = best_paths(ranks.tolist(), settings.topk, settings.nodes - 1)
    if not ordered:
        raise UserError(
            f"the first head was never right with any of its --topk {settings.topk} guesses; there "
            "is no path to make a tree of"
        )
    found = TreeSearch(
        positions=len(ranks),
        head_accuracy=_accuracy(ranks),
        paths=[path for path, _ in ordered],
        frequency=[frequency for _, frequency in ordered],
        ranks=[of_answer.tolist() for of_answer in by_answer],
    )
    write_atomically(settings.out / FILE, json.dumps(found.content()) + "\n")
    return found


@torch.inference_mode()
def ranks_of(loaded: Loaded, ids: list[int], start: int) -> Tensor:
    """Ranks [positions, heads] of the true tokens, each among its head's guesses.

    ids: a prompt and its answer. start: where the answer begins. A position counts where every head
    has a token of the answer to guess.
    """
    heads = loaded.model.heads
    text = torch.tensor(ids, device=loaded.model.device)
    positions = len(ids) - len(heads) - start
    if positions <= 0:
        return torch.empty(0, len(heads), dtype=torch.long)
    hidden_states = loaded.model.hidden_states_of(text.unsqueeze(0))[0]
    # Each predicts a root. A model may be spread over several devices.
    before_roots = hidden_states[start - 1 : start - 1 + positions].to(text.device)
    ranks = []
    for head, logits in enumerate(heads(before_roots)):  # [positions, vocab]
        first = start + 1 + head
        target = text[first : first + positions].unsqueeze(1)
        score = logits.gather(1, target)
        # Of equal logits, which are common in half precision, the token with the lower id is first.
        is_earlier = torch.arange(logits.shape[-1], device=target.device) < target
        ranks.append(((logits > score) | ((logits == score) & is_earlier)).sum(-1))
    return torch.stack(ranks, dim=1).cpu()


def best_paths(
    ranks: Sequence[Sequence[int]], topk: int, limit: int
) -> list[tuple[RankPath, float]]:
    """The `limit` most frequent rank paths, with their frequencies.

    ranks: [positions][heads]. topk: guesses of each head that paths may take. Of equally frequent
    paths the shallower comes first, then the one of lower ranks.

    >>> best_paths([[0, 0], [0, 1], [1, 0], [0, 0]], topk=2, limit=3)
    [((0,), 0.75), ((0, 0), 0.5), ((1,), 0.25)]
    """
    counts: Counter[RankPath] = Counter()
    for row in ranks:
        for depth, rank in enumerate(row, start=1):
            if rank >= topk:
                break
            counts[tuple(row[:depth])] += 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    return [(path, count / len(ranks)) for path, count in ordered[:limit]]


def tokens_per_step(ranks: Sequence[Sequence[Sequence[int]]], paths: Collection[RankPath]) -> float:
    """Tokens that a step commits where answers are decoded with a tree of rank paths.

    A step that keeps k guesses skips the next k positions. Easy positions often stand together, and
    are then skipped together. So this is less than 1 + the sum of the paths' frequencies. ranks:
    [answers][positions][heads].

    >>> tokens_per_step([[[0, 0], [0, 0], [0, 9], [9, 9]]], {(0,), (0, 0)})
    2.0
    """
    tree, tokens, steps = set(paths), 0, 0
    for answer in ranks:
        at = 0
        while at < len(answer):
            kept = 0
            while kept < len(answer[at]) and tuple(answer[at][: kept + 1]) in tree:
                kept += 1
            tokens, steps, at = tokens + 1 + kept, steps + 1, at + 1 + kept
    return tokens / steps


def _accuracy(ranks: Tensor) -> list[list[float]]:
    """How often guess r of each head was right, r < MOST_RANKS, of ranks [positions, heads]."""
    return [
        [round((of_head == rank).float().mean().item(), 5) for rank in range(MOST_RANKS)]
        for of_head in ranks.unbind(1)
    ]
