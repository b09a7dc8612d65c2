"""Fit the few numbers that `conditional` mixes heads and successors by, on held-out text, in minutes.

    python scripts/calibrate.py --model my-heads/medusa --template vicuna_v1.1 --corpus heldout.jsonl --out my-heads/medusa

The model answers `--prompts` of the corpus' prompts greedily with the decoder itself. At every step, and at every depth along
what the model then really went on to say, the candidates are noted as the decoder met them: the head's log probabilities, the
successors known at that moment, and which candidate was right. On every other prompt the weights are fitted by maximum
likelihood (decoders/calibration.py has the formula); the rest say what it brought.

Writes `medusa_calibration.json`, which `conditional` finds beside the model, and `reliability.png`: how often drafted nodes
are accepted against the probability that the decoder gave them, which `--nodes auto` relies on.
"""

import argparse

import torch
from torch import Tensor
from tqdm import tqdm

from bench.common.arguments import whole
from bench.common.errors import UserError, exit_cleanly
from bench.inputs.chat import Chat
from bench.inputs.loader import CALIBRATION_FILE, Loaded
from bench.reporting.figures import draw_reliability
from decoders.accept import Exact
from decoders.conditional.calibration import MOST_COVERED, Calibration
from decoders.conditional.decoder import Conditional
from decoders.conditional.successors import NOTHING
from decoders.loop import Step, Stop
from decoders.model.model import Rows
from decoders.tree import Draft
from train_heads import corpus_examples
from training import add_corpus_flags, add_model_flags, load_model


class Watched(Conditional):
    """Notes at every step what the candidates along the right continuation are."""

    truth: list[int]  # prompt and answer

    def watch(self, truth: list[int], at: int) -> None:
        self.truth, self.at, self.notes = truth, at, []

    def propose(self, root: Tensor, hidden: Tensor):
        ahead = self.truth[
            self.at + 1 : self.at + 1 + self.levels
        ]  # right tokens of the levels that the answer has
        if ahead:
            line = torch.tensor(self.truth[self.at - 1 : self.at + len(ahead)])
            self.notes.append(self._note(hidden, line[:-1], line[1:], torch.tensor(ahead)))
        return super().propose(root, hidden)

    def observe(self, draft: Draft, verified: Rows, best: Tensor) -> None:
        super().observe(draft, verified, best)
        self.at += 1 + int(
            draft.tree.depth[best]
        )  # here, as the next tree is proposed before the step is yielded

    def _note(
        self, hidden: Tensor, before: Tensor, token: Tensor, right: Tensor
    ) -> dict[str, Tensor]:
        known = self.table.after(before.to(hidden.device), token.to(hidden.device))
        levels = min(len(right), self.model.num_heads)
        heads = self.model.guess(hidden).float().log_softmax(-1)[:levels]
        guess_log_prob, guess = heads.topk(self.topk)
        marginal = torch.cat(
            (guess_log_prob, heads.gather(1, known.token[:levels].clamp(min=0))), 1
        )
        same = guess.unsqueeze(2).eq(known.token[:levels].unsqueeze(1))
        weight = (
            torch.tensor(self.model.calibration.successor_weight)
            .to(hidden.device)
            .take(known.evidence)
            .unsqueeze(1)
        )
        prob = self.table.floor * torch.expm1(
            (known.bonus / weight).clamp(min=0)
        )  # of each known successor
        ratio = torch.cat(
            (torch.where(same, prob[:levels].unsqueeze(1), 0.0).sum(-1), prob[:levels]), 1
        )
        no_more = same.any(1).logical_or(known.bonus[:levels] == NOTHING)
        absent = torch.cat((torch.zeros_like(guess, dtype=torch.bool), no_more), 1)
        right = right.to(hidden.device).unsqueeze(1)
        hit = torch.cat((guess, known.token[:levels]), 1).eq(right[:levels]).logical_and(~absent)
        beyond = (
            known.token[levels:]
            .eq(right[levels:])
            .logical_and(known.bonus[levels:] > NOTHING)
            .any(1)
        )
        note = {
            "depth": torch.arange(levels), "evidence": known.evidence[:levels], "marginal": marginal, "ratio": ratio,
            "absent": absent, "target": torch.where(hit.any(1), hit.byte().argmax(1), -1),
            "beyond": beyond[known.evidence[levels:] > 0],
        }  # fmt: skip
        return {name: value.cpu() for name, value in note.items()}


def steps_of(loaded: Loaded, decoder: Conditional, prompt: list[int], tokens: int) -> list[Step]:
    stop = Stop(loaded.eos, min(tokens, loaded.model.context - len(prompt)))
    return list(decoder.decode(torch.tensor(prompt), Exact(), stop))


def notes_of(
    loaded: Loaded, prompt: list[int], answer: list[int], topk: int, tokens: int
) -> list[dict[str, Tensor]]:
    decoder = Watched(topk=topk)
    decoder.setup(loaded.model)
    decoder.watch(prompt + answer, len(prompt))
    stop = Stop(loaded.eos, min(tokens, loaded.model.context - len(prompt)))
    for _ in decoder.decode(torch.tensor(prompt), Exact(), stop):
        pass
    return decoder.notes


def log_likelihood(
    notes: dict[str, Tensor], head_weight: Tensor, successor_weight: Tensor, floor: Tensor
) -> Tensor:
    """log p [notes] of the right candidate among the candidates, by the formula of decoders/calibration.py."""
    weight = head_weight[notes["depth"], notes["evidence"]].unsqueeze(1)
    bonus = successor_weight[notes["evidence"]].unsqueeze(1) * torch.log1p(notes["ratio"] / floor)
    score = (weight * notes["marginal"] + bonus).masked_fill(notes["absent"], NOTHING)
    return score.log_softmax(-1).gather(1, notes["target"].clamp(min=0).unsqueeze(1)).squeeze(1)


def pooled(notes: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([note[name] for note in notes]) for name in notes[0]}


def fit(notes: list[dict[str, Tensor]], depths: int) -> Calibration:
    """The calibration of largest likelihood; what has no evidence at all keeps its default."""
    every = pooled(notes)
    found = every["target"] >= 0
    right = {name: value[found] for name, value in every.items() if name != "beyond"}
    default = Calibration()
    rows = [
        default.head_weight[min(depth, len(default.head_weight) - 1)] for depth in range(depths)
    ]
    head_weight = torch.tensor(rows, requires_grad=True)
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

    def share(hits: Tensor) -> float:
        """log of how often something was so, kept away from 0 and 1."""
        return min(MOST_COVERED, torch.log((hits.sum() + 1) / (len(hits) + 2)).item())

    return Calibration(
        head_weight=tuple(tuple(round(each, 4) for each in row) for row in head_weight.tolist()),
        successor_weight=(0.0, *(round(each, 4) for each in successor_weight.tolist()[1:])),
        floor=float(f"{log_floor.exp().item():.4g}"),
        coverage=tuple(round(share(found[every["depth"] == depth]), 4) for depth in range(depths)),
        beyond=round(share(every["beyond"]), 4) if len(every["beyond"]) else default.beyond,
    )


def nats(notes: list[dict[str, Tensor]], calibration: Calibration, depths: int) -> float:
    """Mean -log p of the right token, given that it is a candidate."""
    every = pooled(notes)
    right = {name: value[every["target"] >= 0] for name, value in every.items() if name != "beyond"}
    rows = [
        calibration.head_weight[min(depth, len(calibration.head_weight) - 1)]
        for depth in range(depths)
    ]
    weights = (
        torch.tensor(rows),
        torch.tensor(calibration.successor_weight),
        torch.tensor(calibration.floor),
    )
    return -log_likelihood(right, *weights).mean().item()


def judged(
    loaded: Loaded, prompts: list[list[int]], calibration: Calibration, nodes: int, tokens: int
):
    """(tokens per inference, predicted probabilities [n], whether accepted [n]) of drafted nodes with a calibration."""
    loaded.model.calibration = calibration
    decoder = Conditional(nodes=nodes)
    decoder.setup(loaded.model)
    committed = steps = 0
    predicted, accepted = [], []
    for prompt in tqdm(prompts, desc="judging", unit="answer"):
        for step in steps_of(loaded, decoder, prompt, tokens):
            committed, steps = committed + len(step.tokens), steps + 1
            if step.finish is None:  # the last step is cut
                kept = torch.zeros(len(step.draft.tree), dtype=torch.bool)
                kept[step.path.cpu()] = True
                predicted.append(step.draft.log_prob.cpu().exp()[1:])
                accepted.append(kept[1:])
    return committed / steps, torch.cat(predicted), torch.cat(accepted)


@torch.inference_mode(False)
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_model_flags(parser)
    add_corpus_flags(parser, CALIBRATION_FILE)
    parser.add_argument("--prompts", type=whole(2), default=256)
    parser.add_argument(
        "--new-tokens", type=whole(8), default=256, help="length of an answer at most"
    )
    parser.add_argument(
        "--topk", type=whole(1), default=32, help="guesses of each head that are candidates"
    )
    parser.add_argument(
        "--nodes", type=whole(2), default=64, help="of the trees that judge the fit"
    )
    args = parser.parse_args()
    loaded = load_model(args)
    depths = loaded.model.num_heads
    if depths == 0:
        raise UserError(f"{args.model!r} has no Medusa heads to calibrate")
    chat = Chat.of(loaded.tokenizer, args.template)
    prompts = [
        ids[:start]
        for ids, start in corpus_examples(args.corpus, chat)
        if start > 1 and start + args.new_tokens <= loaded.model.context
    ][: args.prompts]
    if len(prompts) < 2:
        raise UserError(
            f"{args.corpus} has {len(prompts)} prompts that leave room for --new-tokens {args.new_tokens}; 2 needed"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    before = loaded.model.calibration = loaded.model.calibration or Calibration()
    answerer = Conditional(topk=args.topk)
    answerer.setup(loaded.model)
    halves: list[list[dict[str, Tensor]]] = [[], []]
    for at, prompt in enumerate(tqdm(prompts, desc="noting candidates", unit="answer")):
        answer = [
            token
            for step in steps_of(loaded, answerer, prompt, args.new_tokens)
            for token in step.tokens
        ]
        with torch.no_grad():
            halves[at % 2] += notes_of(loaded, prompt, answer, args.topk, args.new_tokens)
    if not halves[0] or not halves[1]:
        raise UserError("the answers are too short to fit anything to")
    with torch.enable_grad():
        after = fit(halves[0], depths)
    unseen = prompts[1::2]
    print(f"{len(halves[0]):,} steps fitted, {len(halves[1]):,} others judged")
    for name, calibration in (("before", before), ("after", after)):
        tpi, predicted, accepted = judged(loaded, unseen, calibration, args.nodes, args.new_tokens)
        fitted = f"{nats(halves[1], calibration, depths):.4f} nats a token, {tpi:.3f} tokens/inference with {args.nodes} nodes"
        shares = f"nodes accepted {accepted.float().mean():.4f} of the time, predicted {predicted.mean():.4f}"
        print(f"{name:6}: {fitted}; {shares}")
    after.write(args.out / CALIBRATION_FILE)
    figure = draw_reliability(args.out, predicted.numpy(), accepted.numpy())
    print(f"{args.out / CALIBRATION_FILE}, {figure.path}")


if __name__ == "__main__":
    exit_cleanly(main)
