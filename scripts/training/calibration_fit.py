"""Fits the weights by which `conditional` mixes heads and successors: maximum likelihood."""

import json
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bench.common.errors import UserError
from bench.common.files import write_atomically
from bench.inputs.chat import Chat
from bench.inputs.fitted import read_fitted, take_files
from bench.inputs.loader import Loaded
from bench.reporting.figures import draw_reliability
from decoders.best_nodes import NO_SCORE
from decoders.conditional.calibration import FILE, MOST_COVERED, Calibration
from decoders.conditional.decoder import Conditional
from settings.training import CalibrationSettings
from training.calibration_notes import Notes, notes_of, steps_of
from training.corpus import numbered_examples
from training.models import load_model_with_heads, with_chat


@dataclass(frozen=True, eq=False)
class Judgement:
    """How good a calibration is on text that it was not fitted to."""

    nats: float  # Mean -log p of the true next token, over rows where it is a candidate.
    tokens_per_inference: float
    predicted: Tensor  # [drafted nodes] the probability that each path was given.
    is_accepted: Tensor  # [drafted nodes]


@dataclass(frozen=True, eq=False)
class CalibrationFit:
    """A fitted calibration, and how good it is compared with the one before."""

    fitted_steps: int
    judged_steps: int
    before: Judgement
    after: Judgement
    # Of `after`: how often nodes are accepted against what was predicted of them. None: it was not
    # drawn, as the calibration that was in --out stays, and its figure with it.
    figure: Path | None
    # Nats of the calibration that was in --out and stays, as `after` is no better. None: it was
    # overwritten, or there was none.
    kept: float | None


def calibrate(settings: CalibrationSettings) -> CalibrationFit:
    """Fit a calibration on every other conversation, judge it on the rest, and write it.

    A better one that is there already stays. UserError says what does not fit.
    """
    loaded, chat = with_chat(load_model_with_heads(settings, " to calibrate"), settings.template)
    if settings.topk > loaded.model.vocab:
        raise UserError(
            f"--topk is {settings.topk}, but the vocabulary has {loaded.model.vocab} tokens"
        )
    prompts = _prompts(loaded, chat, settings)  # Of both halves.
    settings.out.mkdir(parents=True, exist_ok=True)
    before = _calibration_of(loaded)
    halves: list[list[Notes]] = [[], []]
    with tqdm(total=sum(map(len, prompts)), desc="noting candidates", unit="answer") as bar:
        for half, of_half in zip(halves, prompts, strict=True):
            for prompt in of_half:
                half += notes_of(loaded, before, prompt, settings.topk, settings.new_tokens)
                bar.update()
    if not all(half and len(Notes.joined(half).with_target().target) for half in halves):
        raise UserError("the answers are too short to fit anything to; give more --prompts")
    after = fit(Notes.joined(halves[0]), loaded.model.num_heads)
    unseen = Notes.joined(halves[1])
    judged = [judge(loaded, each, unseen, prompts[1], settings) for each in (before, after)]
    kept = _better_there(settings.out / FILE, after, unseen, loaded.model.num_heads)
    figure = None
    if kept is None:
        write_atomically(settings.out / FILE, json.dumps(after.content(), indent=1) + "\n")
        predicted, is_accepted = judged[1].predicted.numpy(), judged[1].is_accepted.numpy()
        figure = draw_reliability(settings.out, predicted, is_accepted).path
    return CalibrationFit(len(halves[0]), len(halves[1]), *judged, figure, kept)


def _better_there(path: Path, after: Calibration, unseen: Notes, depths: int) -> float | None:
    """The nats of the calibration in a file, where it is at least as good as `after` on `unseen`.

    None: there is none, or it is worse.
    """
    if not path.exists():
        return None
    try:
        there = nats(unseen, read_fitted(path, Calibration.parse), depths)
    except ValueError as error:
        raise UserError(f"{error}; remove the file to write another") from error
    return None if nats(unseen, after, depths) < there else there


def _prompts(loaded: Loaded, chat: Chat, settings: CalibrationSettings) -> list[list[list[int]]]:
    """Two halves of the prompts that leave room for an answer. A conversation is in one of them.

    UserError where there are fewer than 2 such conversations.
    """
    with_room = (
        (number, ids[:start])
        for number, (ids, start) in numbered_examples(settings.corpus, chat)
        if start > 1 and start + settings.new_tokens <= loaded.model.context
    )
    by_conversation: dict[int, list[list[int]]] = {}
    seen: set[tuple[int, ...]] = set()  # The same prompt could be fitted to and judged on.
    for number, prompt in islice(with_room, settings.prompts):
        if tuple(prompt) not in seen:
            seen.add(tuple(prompt))
            by_conversation.setdefault(number, []).append(prompt)
    conversations = list(by_conversation.values())
    if len(conversations) < 2:
        raise UserError(
            f"{settings.corpus} has {len(conversations)} conversations with a prompt that leaves "
            f"room for --new-tokens {settings.new_tokens}; 2 needed"
        )
    return [list(chain.from_iterable(conversations[first::2])) for first in (0, 1)]


def _calibration_of(loaded: Loaded) -> Calibration:
    """The calibration that lies beside a model, or the default one."""
    decoder = Conditional()
    try:
        take_files(decoder, loaded.where, loaded.model)
    except ValueError as error:
        raise UserError(str(error)) from error
    return decoder.files.get(FILE) or Calibration()


def log_likelihood(
    notes: Notes, head_weight: Tensor, successor_weight: Tensor, floor: Tensor
) -> Tensor:
    """log p [rows] of each target among its candidates.

    By the formula of `decoders.conditional.calibration`, which says what the numbers are.
    head_weight: [depths, evidence]. successor_weight: [evidence]. floor: a number.
    """
    weight = head_weight[notes.depth, notes.evidence].unsqueeze(1)
    bonus = torch.log1p(notes.successor_prob / floor)
    bonus = successor_weight[notes.evidence].unsqueeze(1) * bonus
    score = (weight * notes.marginal + bonus).masked_fill(notes.is_absent, NO_SCORE)
    target = notes.target.clamp(min=0).unsqueeze(1)
    return score.log_softmax(-1).gather(1, target).squeeze(1)


@torch.enable_grad()
def fit(notes: Notes, depths: int) -> Calibration:
    """The calibration of the largest likelihood.

    Weights, floor and `beyond` keep their defaults where there is no data. The coverage of a depth
    without data is log(1/2). successor_weight[0] is 0.
    """
    default = Calibration()
    right = notes.with_target()
    head_weight = torch.tensor(_by_depth(default, depths), requires_grad=True)
    successor_weight = torch.tensor(default.successor_weight, requires_grad=True)
    log_floor = torch.tensor(default.floor).log().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [head_weight, successor_weight, log_floor], max_iter=200, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -log_likelihood(right, head_weight, successor_weight, log_floor.exp()).mean()
        value.backward()
        return value

    optimiser.step(loss)
    found = [notes.has_target[notes.depth == depth] for depth in range(depths)]
    return Calibration(
        head_weight=tuple(tuple(round(each, 4) for each in row) for row in head_weight.tolist()),
        successor_weight=(0.0, *(round(each, 4) for each in successor_weight.tolist()[1:])),
        floor=float(f"{log_floor.exp().item():.4g}"),
        coverage=tuple(_log_share(hits) for hits in found),
        beyond=_log_share(notes.beyond) if len(notes.beyond) else default.beyond,
    )


def _by_depth(calibration: Calibration, depths: int) -> list[tuple[float, ...]]:
    """The weights of the heads [depths][evidence]. The last given depth stands for deeper ones."""
    rows = calibration.head_weight
    return [rows[min(depth, len(rows) - 1)] for depth in range(depths)]


def _log_share(hits: Tensor) -> float:
    """log of the share of hits, kept away from 0 and 1."""
    share = torch.log((hits.sum() + 1) / (len(hits) + 2)).item()
    return round(min(MOST_COVERED, share), 4)


def nats(notes: Notes, calibration: Calibration, depths: int) -> float:
    """Mean -log p of the true next tokens, over rows where they are candidates."""
    weights = (
        torch.tensor(_by_depth(calibration, depths)),
        torch.tensor(calibration.successor_weight),
        torch.tensor(calibration.floor),
    )
    return -log_likelihood(notes.with_target(), *weights).mean().item()


def judge(
    loaded: Loaded,
    calibration: Calibration,
    notes: Notes,
    prompts: list[list[int]],
    settings: CalibrationSettings,
) -> Judgement:
    """How good a calibration is, on prompts and on the notes of their answers."""
    decoder = Conditional(nodes=settings.nodes, topk=settings.topk)
    decoder.take({FILE: calibration})
    decoder.setup(loaded.model)
    committed = steps = 0
    predicted, is_accepted = [], []
    for prompt in tqdm(prompts, desc="judging", unit="answer"):
        for step in steps_of(loaded, decoder, prompt, settings.new_tokens):
            committed += len(step.tokens)
            steps += 1
            if step.finish is not None:  # The last step is cut.
                continue
            kept = torch.zeros(len(step.draft.tree), dtype=torch.bool)
            kept[step.path.cpu()] = True
            predicted.append(step.draft.log_prob.cpu().exp()[1:])
            is_accepted.append(kept[1:])
    return Judgement(
        nats(notes, calibration, loaded.model.num_heads),
        committed / steps,
        torch.cat(predicted),
        torch.cat(is_accepted),
    )
