"""Teaching a language model not to repeat itself when it decodes greedily.

Sequence-level unlikelihood (Welleck et al. 2020, arXiv 1908.04319).
"""

import json

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedModel

from bench.common.errors import UserError
from bench.inputs.chat import Chat
from bench.inputs.loader import load
from decoders.step import Stop
from settings.training import LoopsSettings
from training.batches import NO_TARGET
from training.checkpoints import Checkpoint, settled
from training.corpus import Example, corpus_examples
from training.distillation import generate
from training.head_files import refuse_own_folder, write_generation_config
from training.models import kept_time, with_chat

MarkedText = tuple[list[int], list[bool]]  # Tokens, and which of them are to become less likely.
Measured = dict[str, float]
CHECKPOINT = "unlearn_state.pt"
SAVE_EVERY_S = 120.0
# Settings that may change when a training goes on. The others decide what is learned.
GOES_ON_WITH = ("out", "updates", "device")
WARMUP = 5  # Updates.


def _examples(chat: Chat, settings: LoopsSettings) -> list[Example]:
    """A batch to measure on, and one for each update."""
    wanted = settings.batch * (settings.updates + 1)
    examples: list[Example] = []
    answers = corpus_examples(settings.corpus, chat)
    for ids, start in tqdm(answers, desc="reading corpus", total=wanted):
        if start <= settings.max_prompt:
            examples.append((ids[: settings.max_length], start))
        if len(examples) == wanted:
            break
    if len(examples) < wanted:
        raise UserError(
            f"{settings.corpus} has {len(examples)} prompts of at most --max-prompt tokens; "
            f"{wanted} are needed"
        )
    return examples


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
def greedy_answers(lm: PreTrainedModel, prompts: list[list[int]], stop: Stop) -> list[list[int]]:
    """The answers of a model in training, each cut where `stop` ends it."""
    lm.eval()
    answers = generate(lm, prompts, stop, temperature=0.0)
    lm.train()
    return answers


def losses(lm: PreTrainedModel, rows: list[MarkedText]) -> tuple[Tensor, Tensor]:
    """Mean next-token loss, and mean unlikelihood -log(1 - p) of the marked tokens."""
    longest = max(len(tokens) for tokens, _ in rows)
    ids = torch.tensor(
        [tokens + [NO_TARGET] * (longest - len(tokens)) for tokens, _ in rows], device=lm.device
    )
    is_marked = torch.tensor(
        [marks + [False] * (longest - len(marks)) for _, marks in rows], device=lm.device
    )[:, 1:]
    with torch.autocast(lm.device.type, torch.bfloat16):
        logits = lm(input_ids=ids.clamp(min=0), use_cache=False).logits[:, :-1]
    log_prob = logits.float().log_softmax(-1)
    target = ids[:, 1:]
    likelihood = F.nll_loss(log_prob.flatten(0, 1), target.flatten(), ignore_index=NO_TARGET)
    own = log_prob.gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1)[is_marked]
    unlikelihood = -torch.log((1 - own.exp()).clamp(min=1e-5)).sum() / is_marked.sum().clamp(min=1)
    return likelihood, unlikelihood


class Unlearning:
    """A model, its optimizer, and how far it has come."""

    def __init__(self, settings: LoopsSettings) -> None:
        """Load the model, or go on where an earlier session stopped.

        UserError where the corpus has too few short prompts, or --out is the model's own folder.
        """
        self.settings = settings
        if settings.max_prompt >= settings.max_length:
            raise UserError(
                f"--max-prompt is {settings.max_prompt}; expected less than --max-length, "
                f"{settings.max_length}, which would cut the prompts"
            )
        loaded = load(settings.model, settings.device, "float32")
        for folder in ("", "base"):  # The result is written into the second one.
            refuse_own_folder(loaded, settings.out / folder)
        settings.out.mkdir(parents=True, exist_ok=True)
        self.tokenizer = loaded.tokenizer
        loaded, chat = with_chat(loaded, None, kept_time(settings.out))
        self.stop = loaded.stop(settings.new_tokens)
        self.generation_config = loaded.generation_config
        lm = loaded.model.lm
        # A copy as it was loaded, which can be trained.
        self.lm = type(lm).from_pretrained(settings.model, config=lm.config, dtype=torch.float32)
        self.lm.to(loaded.model.device)
        self.lm.generation_config = lm.generation_config  # Plain greedy decoding.
        examples = _examples(chat, settings)
        self.examples = examples[settings.batch :]
        # The others are measured on, and not trained on.
        self.measured_on = [ids[:start] for ids, start in examples[: settings.batch]]
        self.optimizer = torch.optim.AdamW(
            self.lm.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        decisive = settled(settings, GOES_ON_WITH, model=loaded.identity)
        self.checkpoint = Checkpoint(settings.out / CHECKPOINT, decisive, SAVE_EVERY_S)
        self.update = 0
        state = self.checkpoint.read()
        if state is None:
            self.before = self.measure()
        else:
            self.lm.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.update, self.before = state["update"], state["before"]

    def measure(self) -> Measured:
        """Shares of repeated n-grams and of answers without an end, and tokens per answer."""
        settings = self.settings
        answers = greedy_answers(self.lm, self.measured_on, self.stop)
        marks = [mark for answer in answers for mark in repeats(answer, settings.ngram)]
        return {
            "repeated_ngrams": sum(marks) / len(marks),
            "unended_answers": sum(map(self._has_no_end, answers)) / len(answers),
            "tokens_per_answer": len(marks) / len(answers),
        }

    def _has_no_end(self, answer: list[int]) -> bool:
        return self.stop.cut([], answer)[1] in (None, "length")

    def run(self) -> Measured:
        """Make the updates that are left, and write the model. What `measure` says then."""
        settings = self.settings
        bar = tqdm(total=settings.updates, initial=self.update, desc="unlearning loops")
        with bar:
            while self.update < settings.updates:
                loss, repeated = self._update()
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", repeated=f"{repeated:.1%}")
                if self.checkpoint.is_due or self.update == settings.updates:
                    self.checkpoint.save(self._state())
        after = self.measure()
        self.lm.save_pretrained(settings.out / "base")
        self.tokenizer.save_pretrained(settings.out / "base")
        write_generation_config(self.generation_config, settings.out / "base")
        result = {"before": self.before, "after": after}
        (settings.out / "unlearn_result.json").write_text(json.dumps(result, indent=1) + "\n")
        return after

    def _update(self) -> tuple[float, float]:
        """One step of the optimizer: its ordinary loss, and the repeated part of its answers."""
        settings = self.settings
        group = self.examples[self.update * settings.batch :][: settings.batch]
        prompts = [ids[:start] for ids, start in group]
        answers = greedy_answers(self.lm, prompts, self.stop)
        marks = [repeats(answer, settings.ngram) for answer in answers]
        looping = [
            (prompt + answer, [False] * len(prompt) + marked)
            for prompt, answer, marked in zip(prompts, answers, marks, strict=True)
        ]
        likelihood, _ = losses(self.lm, [(ids, [False] * len(ids)) for ids, _ in group])
        likelihood.backward()
        _, unlikelihood = losses(self.lm, looping)
        (settings.weight * unlikelihood).backward()
        torch.nn.utils.clip_grad_norm_(self.lm.parameters(), 1.0)
        for each in self.optimizer.param_groups:
            each["lr"] = settings.lr * self._learning_rate()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update += 1
        return likelihood.item(), sum(map(sum, marks)) / sum(map(len, answers))

    def _learning_rate(self) -> float:
        """A factor in [0, 1]: a short warm-up, and linear decay over the second half."""
        left = (self.settings.updates - self.update) / self.settings.updates
        return min(1.0, (self.update + 1) / WARMUP, 2 * left)

    def _state(self) -> dict:
        return {
            "model": self.lm.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "update": self.update,
            "before": self.before,
        }
