"""What all decoders of a run share, and whether one of them has changed it.

A decoder of another package gets the loaded model itself. One that changes its weights changes the
answers of every other decoder, greedy's included, and "equal" then means nothing. So the model
reads a few fixed tokens now and then, and its logits and its heads' must be those of the beginning.
Its context, what its tokenizer makes of a fixed text, and torch's settings, which the whole process
shares, must be the same, too.
"""

import torch
from torch import Tensor

from decoders.model.model import Model, Rows

ROWS = 8  # Tokens that are read.
TEXT = "The tokens of this text: 1 + 1 = 2."  # What the tokenizer is asked about.
TOLERANCE = 1e-3  # Relative. Another number of threads, or another kernel, changes less.


class SharedModel:
    """A model, its tokenizer and torch's settings, as they were when this was made."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._logits = _logits(model)
        self._tokens = _tokens(model)
        self._context = model.context
        self._settings = torch_settings()
        self.hooks = _hooks(model)

    def change(self) -> str:
        """What has changed, in words. Empty: nothing. The model's cache is lost by this."""
        if said := changed_setting(self._settings):
            return said
        if self.model.context != self._context:
            return f"the model's context is {self.model.context}, and was {self._context}"
        if _tokens(self.model) != self._tokens:
            return "the tokenizer"
        for whose, logits in _logits(self.model).items():
            before = self._logits[whose]
            distance, size = (logits - before).norm(), before.norm()
            if before.isfinite().all() and not distance <= TOLERANCE * size:
                moved = distance / size
                return f"{whose} logits after a few fixed tokens have moved by {moved:.2g}"
        return ""

    def new_hooks(self) -> int:
        """How many functions have been put before or after the layers' forward since last asked."""
        before, self.hooks = self.hooks, _hooks(self.model)
        return self.hooks - before


def _logits(model: Model) -> dict[str, Tensor]:
    """Logits [rows, vocab] after some tokens, by whose they are.

    The model reads the tokens together, one alone, and all without the engine's changes. An engine
    may read other copies of the weights in each of these.
    """
    prompt = torch.arange(1, 1 + min(ROWS, model.context)) % model.vocab
    read = [_read(model, prompt), _read(model, prompt[:1])]
    with model.as_loaded():
        read.append(_read(model, prompt))
    found = {"the model's": torch.cat([rows.logits for rows in read])}
    if model.heads is not None:
        logits = model.draft_logits(read[0].hidden_states[-1:]).float()
        found["the heads'"] = logits.masked_fill(logits.isneginf(), 0.0)  # Tokens left out.
    return found


def _read(model: Model, prompt: Tensor) -> Rows:
    rows = model.prefill(prompt, room=0, all_rows=True)
    return Rows(rows.hidden_states.clone(), rows.logits.float().clone())


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


def torch_settings() -> dict[str, object]:
    """The settings of torch that the whole process shares, by their names in words."""
    return {
        "default dtype": torch.get_default_dtype(),
        "number of threads": torch.get_num_threads(),
        "use of deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "gradient mode": torch.is_grad_enabled(),
    }


def changed_setting(before: dict[str, object]) -> str:
    """The first setting of torch that is no longer as in `before`, in words. Empty: none."""
    for name, value in torch_settings().items():
        if value != before[name]:
            return f"torch's {name} is {value}, and was {before[name]}"
    return ""
