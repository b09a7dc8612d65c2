"""Training the base language model of the demo: a small Llama."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bench.common.errors import UserError
from bench.inputs.devices import check_device
from settings.training import DEMO_ATTENTION_HEADS, DemoSettings
from training.checkpoints import Checkpoint, settled
from training.costs import say_memory, time_left
from training.packed_corpus import PackedCorpus, pack
from training.schedule import Session, learning_rate
from training.tokenizer import train_tokenizer

CHECKPOINT = "train_state.pt"
SAVE_EVERY_S = 300.0
WARMUP_BATCHES = 100
# Settings that may change when a training goes on. The others decide what is learned.
GOES_ON_WITH = ("out", "tokens", "minutes", "device", "no_compile")
SETTLED_BATCHES = 20  # Batches of a session before its speed is used to predict its end.
LONG_ROWS_FROM = 0.9  # Share of all tokens. After it, a row is as long as the context.
HELD_OUT_ROWS = 4  # Rows that are read at once.


@dataclass(frozen=True)
class DemoResult:
    """What was trained."""

    folder: Path
    seen: int  # Tokens, all sessions together.
    heldout_loss: float  # Nats a token, on packed rows.


def train_demo(settings: DemoSettings) -> DemoResult:
    """Train the tokenizer and the model, or go on where an earlier session stopped.

    UserError says what does not fit.
    """
    device = torch.device(check_device(settings.device))
    settings.out.mkdir(parents=True, exist_ok=True)
    decisive = settled(settings, GOES_ON_WITH)
    checkpoint = Checkpoint(settings.out / CHECKPOINT, decisive, SAVE_EVERY_S)
    state = checkpoint.read()
    folder = settings.out / "base"
    if state is None:  # What an interrupted beginning left may be of other settings.
        for leftover in ("base/tokenizer.json", "corpus.npz", "heldout.npz"):
            (settings.out / leftover).unlink(missing_ok=True)
    tokenizer = _tokenizer(folder, settings)
    corpus = pack(settings.corpus, tokenizer, settings.out / "corpus.npz")
    heldout = pack(settings.heldout, tokenizer, settings.out / "heldout.npz").each_once()
    if len(heldout) < settings.seq:
        raise UserError(
            f"{settings.heldout} has {len(heldout):,} tokens, fewer than a row of --seq "
            f"{settings.seq}"
        )
    model = new_model(tokenizer, settings)
    say_memory(model.num_parameters(), device)
    model.to(device)
    training = _Training(model, corpus, settings, device, checkpoint, state)
    training.run()
    model.save_pretrained(folder)
    loss = held_out_loss(model, heldout, settings.seq, device)
    result = {"tokens": training.seen, "heldout_loss_nats": loss}
    (settings.out / "base_result.json").write_text(json.dumps(result, indent=1) + "\n")
    return DemoResult(folder, training.seen, loss)


def _tokenizer(folder: Path, settings: DemoSettings) -> PreTrainedTokenizerFast:
    """The tokenizer of an earlier session, or a new one, which is written."""
    if (folder / "tokenizer.json").exists():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer = train_tokenizer(settings.corpus, settings.vocab, settings.context)
    tokenizer.save_pretrained(folder)
    return tokenizer


def new_model(tokenizer: PreTrainedTokenizerFast, settings: DemoSettings) -> LlamaForCausalLM:
    """An untrained model. The seed fixes its weights."""
    torch.manual_seed(settings.seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            intermediate_size=settings.hidden * 8 // 3 // 16 * 16,
            num_hidden_layers=settings.layers,
            num_attention_heads=DEMO_ATTENTION_HEADS,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            max_position_embeddings=settings.context,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms.

    Each is used for the parameters that it is known to suit.
    """
    in_blocks, others = [], []
    for name, parameter in model.named_parameters():
        is_in_block = parameter.ndim == 2 and ".layers." in name
        (in_blocks if is_in_block else others).append(parameter)
    return [
        torch.optim.Muon(in_blocks, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


@torch.no_grad()
def held_out_loss(
    model: LlamaForCausalLM, stream: np.ndarray, length: int, device: torch.device
) -> float:
    """Mean next-token loss in nats over a stream of tokens, cut into rows of `length`."""
    whole = stream[: len(stream) // length * length]
    rows = torch.from_numpy(whole.reshape(-1, length).astype(np.int64))
    model.eval()
    losses, weights = [], []
    for some in rows.split(HELD_OUT_ROWS):
        ids = some.to(device)
        losses.append(model(input_ids=ids, labels=ids).loss.item())
        weights.append(len(some))
    model.train()
    return float(np.average(losses, weights=weights))


class _Training:
    """A model, its optimizers, and how far it has come."""

    def __init__(
        self,
        model: LlamaForCausalLM,
        corpus: PackedCorpus,
        settings: DemoSettings,
        device: torch.device,
        checkpoint: Checkpoint,
        state: dict | None,
    ) -> None:
        """state: of an earlier session, as `checkpoint` has it. None: this is the first one."""
        self.model = model
        self.settings = settings
        self.device = device
        self.optimizers = optimizers(model, settings.lr)
        self.seen = 0
        self.checkpoint = checkpoint
        if state is not None:
            model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["opts"], strict=True):
                optimizer.load_state_dict(saved)
            self.seen = state["seen"]
        self.batches = corpus.batches(settings.seed, settings.batch_tokens, self.seen)
        self.loss = self._loss if settings.no_compile else torch.compile(self._loss)

    def _loss(self, ids: Tensor) -> Tensor:
        """Mean next-token loss of rows [rows, length]."""
        with torch.autocast(self.device.type, torch.bfloat16):
            hidden_states = self.model.model(ids, use_cache=False).last_hidden_state[:, :-1]
            logits = self.model.lm_head(hidden_states)
            return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    def run(self) -> None:
        """Train until all sessions have seen `tokens` tokens, or this one's minutes are used up."""
        settings = self.settings
        session = Session(self.seen, settings.tokens, settings.minutes)
        speed_known_at = self.seen + SETTLED_BATCHES * settings.batch_tokens
        total = settings.tokens
        average = None
        batches = 0  # Of this session.
        bar = tqdm(total=int(total), initial=self.seen, unit="tok", unit_scale=True, desc="base")
        with bar:
            while self.seen < total:
                if self.seen > speed_known_at:
                    total = session.last_token(self.seen)
                loss = self._update(total)
                bar.update(settings.batch_tokens)
                average = loss if average is None else 0.98 * average + 0.02 * loss
                bar.set_postfix(loss=f"{average:.3f}")
                batches += 1
                if batches == SETTLED_BATCHES and self.seen < total:
                    bar.write(time_left(session.minutes_left(self.seen)), file=sys.stderr)
                if self.checkpoint.is_due:
                    self.checkpoint.save(self._state())
        self.checkpoint.save(self._state())

    def _update(self, total: float) -> float:
        """One step of the optimizers, and its loss in nats. UserError where that is no number.

        total: tokens at which the learning rate is 0.
        """
        settings = self.settings
        length = settings.context if self.seen > LONG_ROWS_FROM * total else settings.seq
        rows = next(self.batches).reshape(-1, length)
        loss = self.loss(torch.from_numpy(rows.astype(np.int64)).to(self.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        warmup = WARMUP_BATCHES * settings.batch_tokens
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * learning_rate(self.seen, total, warmup)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.seen += settings.batch_tokens
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(
                f"the loss became {value} at {self.seen:,} tokens; start again with a lower --lr"
            )
        return value

    def _state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "opts": [optimizer.state_dict() for optimizer in self.optimizers],
            "seen": self.seen,
        }
