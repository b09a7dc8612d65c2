"""What all decoders of a run share, and whether one of them has changed it.

A decoder of another package gets the loaded model itself. One that changes its weights changes the
answers of every other decoder, greedy's included, and "equal" then means nothing. So the model
reads a few fixed tokens now and then, and its logits must be those of the beginning. What its
tokenizer makes of a fixed text, and torch's settings, which the whole process shares, must be the
same, too.
"""

import torch
from torch import Tensor

from decoders.model.model import Model

ROWS = 8  # Tokens that are read.
TEXT = "The tokens of this text: 1 + 1 = 2."  # What the tokenizer is asked about.
TOLERANCE = 1e-3  # Relative. Another number of threads, or another kernel, changes less.


class SharedModel:
    """A model, its tokenizer and torch's settings, as they were when this was made."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._logits = _logits(model)  # [rows, vocab]
        self._tokens = _tokens(model)
        self._settings = _settings()
        self.hooks = _hooks(model)

    def change(self) -> str:
        """What has changed, in words. Empty: nothing. The model's cache is lost by this."""
        for name, value in _settings().items():
            if value != self._settings[name]:
                return f"torch's {name} is {value}, and was {self._settings[name]}"
        if _tokens(self.model) != self._tokens:
            return "the tokenizer"
        distance = (_logits(self.model) - self._logits).norm() / self._logits.norm()
        if self._logits.isfinite().all() and not distance <= TOLERANCE:
            return f"the model's logits after a few fixed tokens have moved by {distance:.2g}"
        return ""

    def new_hooks(self) -> int:
        """How many functions have been put before or after the layers' forward since last asked."""
        before, self.hooks = self.hooks, _hooks(self.model)
        return self.hooks - before


def _logits(model: Model) -> Tensor:
    """Logits [rows, vocab] of some tokens together, of one alone, and of the model as loaded.

    An engine may read other copies of the weights in each of these.
    """
    prompt = torch.arange(1, 1 + min(ROWS, model.context)) % model.vocab
    found = [_read(model, prompt), _read(model, prompt[:1])]
    with model.as_loaded():
        found.append(_read(model, prompt))
    return torch.cat(found)


def _read(model: Model, prompt: Tensor) -> Tensor:
    return model.prefill(prompt, room=0, all_rows=True).logits.float().clone()


def _tokens(model: Model) -> object:
    """What the tokenizer would do in a run. None: the model has none."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return None
    ids = tokenizer(TEXT).input_ids
    return ids, tokenizer.decode(ids), len(tokenizer), tokenizer.chat_template


def _hooks(model: Model) -> int:
    return sum(
        len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in model.lm.modules()
    )


def _settings() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "use of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradient mode": torch.is_grad_enabled(),
    }
