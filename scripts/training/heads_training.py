"""Training heads of any kind while the model stays frozen."""

import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bench.common.errors import UserError, warn
from bench.common.flags import refuse_ignored
from bench.inputs.gguf_files import SUFFIX
from bench.inputs.gguf_metadata import Metadata
from bench.inputs.loader import Loaded
from decoders.conditional import calibration
from decoders.static import decoder as static
from settings.training import HeadsSettings
from training.batches import Lesson, batches
from training.checkpoints import Checkpoint, settled
from training.columns import ColumnChoice
from training.corpus import Example, corpus_examples, read_examples
from training.costs import say_memory, time_left
from training.distillation import own_answers
from training.eagle import EagleKind
from training.head_files import refuse_own_folder
from training.hidden_states import HiddenStates, KeptHiddenStates
from training.hydra import HydraKind
from training.kind import Kind
from training.medusa import MedusaKind
from training.models import kept_time, load_model, with_chat
from training.schedule import Session, learning_rate

CLASSES: dict[str, type[Kind]] = {"medusa": MedusaKind, "hydra": HydraKind, "eagle": EagleKind}
FITTED = (static.FILE, calibration.FILE)  # Files that are fitted to heads.
CHECKPOINTS = {"medusa": "heads_state.pt"}  # Files by kind. Other kinds have <kind>_state.pt.
SAVE_EVERY_S = 120.0
# The learning rate rises over WARMUP_BATCHES * batch_tokens answer tokens. A batch holds fewer of
# them, because batch_tokens also counts prompts and padding.
WARMUP_BATCHES = 20
# Settings that may change when a training goes on. The others decide what is learned.
GOES_ON_WITH = (
    "out", "tokens", "minutes", "device", "trust_remote_code", "merge", "format", "save_dtype",
    "states",
)  # fmt: skip
# Settings of the model's own answers.
OF_OWN_ANSWERS = ("temperatures", "distill_tokens", "distill_batch")
GONE_WRONG = 2.0  # A training has failed if its loss is more than so many times the first loss.
SETTLED_STEPS = 10  # Steps of a session before its speed is used to predict its end.


@dataclass(frozen=True)
class HeadsResult:
    """What was trained."""

    folder: Path
    title: str  # What it is, in words.
    parameters: int  # Numbers that were trained.
    seen: int  # Answer tokens, all sessions together.
    seconds: float  # All sessions together, without loading the model and making own answers.
    measures: str  # What `loss` is of.
    loss: list[float] | None  # A running mean. None: all was trained before.


def train_heads(settings: HeadsSettings) -> HeadsResult:
    """Train heads, or go on where an earlier session stopped, and write them.

    UserError says what does not fit.
    """
    _check_settings(settings)
    loaded = load_model(settings)
    for folder in ("", "merged" if settings.merge else settings.kind):
        refuse_own_folder(loaded, settings.out / folder)
    settings.out.mkdir(parents=True, exist_ok=True)
    if settings.states is not None:  # A folder that cannot be made is told before hours of work.
        settings.states.mkdir(parents=True, exist_ok=True)
    decisive = settled(settings, GOES_ON_WITH, model=loaded.identity)
    file = CHECKPOINTS.get(settings.kind, f"{settings.kind}_state.pt")
    checkpoint = Checkpoint(settings.out / file, decisive, SAVE_EVERY_S)
    state = checkpoint.read()
    is_gguf = loaded.base.endswith(SUFFIX)
    if settings.merge and is_gguf and Metadata(Path(loaded.base)).has_divisors:
        raise UserError(
            f"--merge cannot keep the rotary frequencies of {loaded.base}; leave it out, and the "
            "heads are written beside the model"
        )
    kind = CLASSES[settings.kind](loaded, settings)
    if settings.sampled is not None and not kind.shares_projection:
        raise UserError(
            "--sampled needs heads that end in the model's own output projection; give "
            "--share-projection too, or leave it out"
        )
    say_memory(kind.parameters, loaded.model.device)
    # Names the files of what this model computes in this dtype.
    identity = loaded.identity
    if settings.dtype != "auto":
        identity += f" {settings.dtype}"
    examples = _examples(loaded, identity, settings)
    hidden_states = HiddenStates(loaded.model, autocast=True)
    if settings.states is not None:
        hidden_states = KeptHiddenStates(
            loaded.model, identity, examples, settings.states, autocast=True
        )
    training = _Training(kind, hidden_states, examples, settings, checkpoint, state)
    training.run()
    folder = kind.write(settings.out, getattr(torch, settings.save_dtype))
    stale = [name for name in FITTED if (folder / name).exists()]
    if stale and training.loss is not None:
        warn(f"{folder} holds {' and '.join(stale)} of earlier heads; fit them again")
    return HeadsResult(
        folder,
        kind.title,
        kind.parameters,
        training.seen,
        training.seconds,
        kind.loss_names,
        None if training.loss is None else training.loss.tolist(),
    )


def _check_settings(settings: HeadsSettings) -> None:
    """UserError where settings do not go together, or one of them has no effect."""
    if (settings.corpus is None) == (settings.answers is None):
        raise UserError("give either --corpus or --answers: what the heads learn from")
    if settings.answers is not None and settings.distill:
        raise UserError("--distill makes own answers, and --answers has them; give one of the two")
    if settings.merge and settings.format != "medusa":
        raise UserError(f"--merge writes Medusa-2 alone; leave out --format {settings.format}")
    ignored = [(CLASSES[settings.kind].ignored_settings, f"--kind is {settings.kind}")]
    if settings.distill:
        ignored.append((("examples",), "--distill says how many there are"))
    else:
        ignored.append((OF_OWN_ANSWERS, "--distill is not given"))
    if settings.answers is not None:
        ignored.append((("template",), "--answers has token ids"))
    # `template` is a flag of `bench.run`, which has the default there.
    default = {field.name: field.default for field in fields(settings)} | {"template": None}
    for names, reason in ignored:
        refuse_ignored(settings, default.get, names, reason)


def _longest(loaded: Loaded, settings: HeadsSettings) -> int:
    """Tokens of the longest example. A line says so where the model's context decides.

    A batch has further columns after it, at most one for each of --heads. All kinds leave room for
    these, so that they learn from the same examples.
    """
    room = loaded.model.context - settings.heads
    if room >= settings.max_length:
        return settings.max_length
    print(
        f"examples are cut at {room} tokens, not at --max-length {settings.max_length}: the "
        f"model's context is {loaded.model.context}",
        file=sys.stderr,
    )
    return room


def _examples(loaded: Loaded, identity: str, settings: HeadsSettings) -> list[Example]:
    """What the heads learn from: answers of the corpus, or of the model to the corpus' prompts.

    identity: as in `own_answers`. UserError where the corpus has no answer, or no prompt is short
    enough.
    """
    wanted = settings.distill or settings.examples
    longest = _longest(loaded, settings)
    latest = longest - settings.heads - 3  # Where an answer may begin at the latest.
    if settings.distill:
        latest = min(latest, loaded.model.context - settings.distill_tokens)
    if settings.answers is not None:
        source, answers = settings.answers, read_examples(settings.answers, loaded.model.vocab)
    else:
        loaded, chat = with_chat(loaded, settings.template, kept_time(settings.out))
        source, answers = settings.corpus, corpus_examples(settings.corpus, chat)
    examples: list[Example] = []
    has_answers = False
    for ids, start in tqdm(answers, desc=f"reading {source.name}", total=wanted):
        has_answers = True
        if start <= latest:
            examples.append((ids[:longest], start))
        if len(examples) >= wanted:
            if settings.answers is not None and next(answers, None) is not None:
                warn(
                    f"{source} has more than --examples {wanted} answers; only the first ones are "
                    "learned from"
                )
            break
    if not has_answers:
        raise UserError(f"{source} has no answer to a question; heads learn from answers")
    if not examples:
        limits = "--max-length and --distill-tokens" if settings.distill else "--max-length"
        raise UserError(
            f"every prompt of {source} is longer than {max(0, latest)} tokens, which {limits} and "
            f"the model's context of {loaded.model.context} leave for it"
        )
    if not settings.distill:
        return examples
    if len(examples) < settings.distill:
        warn(
            f"{source} has {len(examples)} prompts that are short enough, for --distill "
            f"{settings.distill}; there are no more own answers than these"
        )
    answers = own_answers(
        loaded,
        identity,
        examples,
        settings.temperatures,
        settings.distill_tokens,
        settings.distill_batch,
        settings.out,
        settings.seed,
    )
    return [(ids[:longest], start) for ids, start in answers]


def _rounded(loss: Tensor) -> list[float]:
    return [round(value, 3) for value in loss.tolist()]


def _running_mean(mean: Tensor, current: Tensor) -> Tensor:
    """Running means [losses] with the losses of one more batch. A loss of 0 had no target."""
    mean = torch.where(mean > 0, mean, current)
    return torch.where(current > 0, 0.95 * mean + 0.05 * current, mean)


class _Training:
    """Heads, their optimizer, and how far they have come."""

    def __init__(
        self,
        kind: Kind,
        hidden_states: HiddenStates,
        examples: list[Example],
        settings: HeadsSettings,
        checkpoint: Checkpoint,
        state: dict | None,
    ) -> None:
        """state: of an earlier session, as `checkpoint` has it. None: this is the first one."""
        self.kind = kind
        self.hidden_states = hidden_states
        self.examples = examples
        self.settings = settings
        self.optimizer = torch.optim.AdamW(
            kind.heads.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0
        )
        self.seen = self.step = 0
        self.seconds = 0.0
        # [losses] running means, 0 where no batch had a target. None: before the first step.
        self.loss: Tensor | None = None
        self.checkpoint = checkpoint
        self.device = next(kind.heads.parameters()).device
        if state is not None:
            kind.heads.load_state_dict(state["heads"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.seen, self.step = state["seen"], state["step"]
            self.seconds = state.get("seconds", 0.0)  # Earlier versions did not count them.
        self.weight = torch.tensor(kind.loss_weights, device=self.device)
        self.columns: ColumnChoice | None = None  # None: heads have projections of their own.
        if kind.shares_projection:
            projection = hidden_states.model.lm.get_output_embeddings()
            self.columns = ColumnChoice(
                projection, examples, settings.sampled, settings.seed, torch.bfloat16
            )
        lengths = [len(ids) for ids, _ in examples]
        self.batches = batches(lengths, settings.batch_tokens, settings.seed)
        for _ in range(self.step):  # Those of earlier sessions.
            next(self.batches)

    def run(self) -> None:
        """Train until all sessions have seen `tokens` tokens, or this one's minutes are used up."""
        settings = self.settings
        session = Session(self.seen, settings.tokens, settings.minutes)
        total = settings.tokens
        earlier_s, began = self.seconds, time.monotonic()
        steps = 0  # Of this session.
        first: Tensor | None = None  # [losses] the first ones of this session.
        desc = settings.kind
        bar = tqdm(total=int(total), initial=self.seen, unit="tok", unit_scale=True, desc=desc)
        with bar:
            while self.seen < total:
                numbers = next(self.batches)
                self._update(self._lesson(numbers), total)
                used = sum(len(ids) - start for ids, start in self._group(numbers))
                self.seen += used
                self.step += 1
                first = self.loss if first is None else torch.where(first > 0, first, self.loss)
                bar.update(used)
                losses = " ".join(f"{value:.2f}" for value in self.loss.tolist())
                bar.set_postfix_str(f"{self.kind.loss_names} {losses}")
                self.seconds = earlier_s + time.monotonic() - began
                steps += 1
                if steps == SETTLED_STEPS and self.seen < total:
                    bar.write(time_left(session.minutes_left(self.seen)), file=sys.stderr)
                if steps > SETTLED_STEPS:
                    total = session.last_token(self.seen)
                if self.checkpoint.is_due or self.seen >= total:
                    self.checkpoint.save(self._state())
        if first is not None and not (self.loss <= GONE_WRONG * first).all():
            warn(
                f"the loss has grown, from {_rounded(first)} to {_rounded(self.loss)}; these heads "
                "are worse than those before this training. Try a lower --lr"
            )

    def _group(self, numbers: list[int]) -> list[Example]:
        return [self.examples[number] for number in numbers]

    def _lesson(self, numbers: list[int]) -> Lesson:
        return Lesson.of(
            self._group(numbers),
            self.kind.ahead,
            lambda ids: self.hidden_states.of(numbers, ids),
            self.device,
        )

    def _update(self, lesson: Lesson, total: float) -> None:
        """One step of the optimizer. total: tokens at which the learning rate is 0."""
        columns = self.columns and self.columns.of_batch(lesson.ids[lesson.is_answer], self.step)
        losses = self.kind.losses(lesson, columns)
        current = losses.detach()
        if not current.isfinite().all():
            raise UserError(
                f"a loss became NaN or infinite at {self.seen:,} tokens ({self.kind.loss_names}: "
                f"{_rounded(current)}); what was saved before is kept, but may be as bad. Start "
                "again with another --out and a lower --lr"
            )
        (losses * self.weight).sum().backward()
        warmup = WARMUP_BATCHES * self.settings.batch_tokens
        for each in self.optimizer.param_groups:
            each["lr"] = self.settings.lr * learning_rate(self.seen, total, warmup)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = current if self.loss is None else _running_mean(self.loss, current)

    def _state(self) -> dict:
        return {
            "heads": self.kind.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "seen": self.seen,
            "step": self.step,
            "seconds": self.seconds,
        }
