"""Answers of the model itself, generated in batches and kept in a file."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from bench.common.errors import UserError
from bench.common.files import sole_writer, write_atomically
from bench.common.strict_json import parse_json
from bench.inputs.loader import Loaded
from decoders.step import Stop
from training.corpus import Example

PAD = 0  # The token of padding. It is masked, so any token does.


def left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Prompts as ids [prompts, longest], and the attention mask of that shape."""
    width = max(map(len, prompts))
    ids = [[PAD] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def generate(
    lm: PreTrainedModel, prompts: list[list[int]], stop: Stop, temperature: float
) -> list[list[int]]:
    """The answers to prompts, each cut where `stop` ends it. temperature: 0 is greedy."""
    ids, mask = left_padded(prompts, lm.device)
    options = {"do_sample": False}
    if temperature:
        options = {"do_sample": True, "temperature": temperature, "top_k": 0}
    made = lm.generate(
        ids, attention_mask=mask, max_new_tokens=stop.max_tokens, pad_token_id=PAD, **options
    )
    return [stop.cut([], answer)[0] for answer in made[:, ids.shape[1] :].tolist()]


@torch.inference_mode()
def own_answers(
    loaded: Loaded,
    identity: str,
    examples: list[Example],
    temperatures: Sequence[float],
    new_tokens: int,
    batch: int,
    out: Path,
    seed: int,
) -> list[Example]:
    """The model's own answers to the examples' prompts, ordered by the length of the prompt.

    identity: of the model and of its dtype. temperatures: used in turn, one for each batch. A file
    in `out` keeps the answers for exactly these settings. After an interruption only the rest is
    generated.
    """
    # Prompts of like length share a batch, so that little of it is padding.
    prompts = sorted((ids[:start] for ids, start in examples), key=len)
    parts = [identity, list(temperatures), new_tokens, batch, seed, prompts]
    if loaded.has_stop is not None:  # Earlier versions did not end answers at stop strings.
        parts.append("ends at stop strings")
    settings = json.dumps(parts)
    cache = out / f"own_answers-{sha256(settings.encode()).hexdigest()[:12]}.jsonl"
    with sole_writer(cache):  # Another kind of heads may be trained beside this one.
        done = _kept_answers(cache, prompts, batch)
        bar = tqdm(total=len(prompts), initial=len(done), desc="own answers", unit="answer")
        with bar, cache.open("a") as kept:
            for start in range(len(done), len(prompts), batch):
                number = start // batch
                torch.manual_seed(seed + number)
                group = prompts[start : start + batch]
                temperature = temperatures[number % len(temperatures)]
                answers = generate(loaded.model.lm, group, loaded.stop(new_tokens), temperature)
                rows = [(p + answer, len(p)) for p, answer in zip(group, answers, strict=True)]
                kept.write("".join(json.dumps(row) + "\n" for row in rows))
                kept.flush()
                done += rows
                bar.update(len(rows))
    return done


def _kept_answers(cache: Path, prompts: Sequence[list[int]], batch: int) -> list[Example]:
    """The answers to the first prompts, of whole batches, in a file.

    The file loses a batch that was cut off. UserError where it is damaged.
    """
    if not cache.exists():
        return []
    lines = cache.read_text().split("\n")[:-1]  # A torn last line has no newline.
    if len(lines) < len(prompts):  # A batch that was cut off is made again.
        lines = lines[: len(lines) // batch * batch]
    try:
        done = [tuple(parse_json(line.encode())) for line in lines]
        if len(done) > len(prompts):
            raise ValueError(f"it has {len(done)} answers to {len(prompts)} prompts")
        for (ids, start), prompt in zip(done, prompts, strict=False):
            if ids[:start] != prompt:
                raise ValueError("an answer is to another prompt")
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{cache} is damaged: {error}; remove it to have the answers made again"
        ) from error
    write_atomically(cache, "".join(json.dumps(row) + "\n" for row in done))
    return done


def greedy_answers(
    loaded: Loaded, examples: list[Example], new_tokens: int, batch: int
) -> list[Example]:
    """The model's own greedy answers to the examples' prompts, kept in no file."""
    with TemporaryDirectory() as work:
        return own_answers(
            loaded, loaded.identity, examples, [0.0], new_tokens, batch, Path(work), seed=0
        )
