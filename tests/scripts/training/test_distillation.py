"""Answers of the model itself."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from bench.common.errors import UserError
from bench.common.files import sole_writer
from bench.inputs.loader import load
from decoders.step import Stop
from tests.helpers.checkpoints import write_base
from tests.helpers.models import tiny_tokenizer
from training.distillation import generate, own_answers
from training.models import kept_time

PROMPTS = [([1, *range(5, 5 + length)], 1 + length) for length in (3, 4, 5, 6, 7)]


def answers(loaded, out):
    made_by = loaded.identity
    return own_answers(loaded, made_by, PROMPTS, [0.0, 0.7], new_tokens=6, batch=2, out=out, seed=3)


def test_answers_that_an_interruption_cut_off_are_made_again(tmp_path):
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    whole = answers(loaded, tmp_path)
    (cache,) = tmp_path.glob("own_answers-*.jsonl")
    assert [tuple(json.loads(line)) for line in cache.read_text().splitlines()] == whole
    assert [ids[:start] for ids, start in whole] == [prompt for prompt, _ in PROMPTS]
    lines = cache.read_text().splitlines(keepends=True)
    cache.write_text("".join(lines[:3]) + lines[3][:5])  # The second batch is torn.
    assert answers(loaded, tmp_path) == whole
    assert cache.read_text() == "".join(lines)


def test_damaged_answers_are_said(tmp_path):
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    answers(loaded, tmp_path)
    (cache,) = tmp_path.glob("own_answers-*.jsonl")
    cache.write_text("{\n" * len(PROMPTS))
    with pytest.raises(UserError, match="remove it to have the answers made again"):
        answers(loaded, tmp_path)


def test_answers_to_other_prompts_are_damage(tmp_path):
    """Two trainings at once appended to one file, which then held every answer twice."""
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    answers(loaded, tmp_path)
    (cache,) = tmp_path.glob("own_answers-*.jsonl")
    lines = cache.read_text().splitlines(keepends=True)
    for wrong in (lines[::-1], 2 * lines):
        cache.write_text("".join(wrong))
        with pytest.raises(UserError, match="is damaged"):
            answers(loaded, tmp_path)


def test_only_one_training_at_a_time_makes_answers(tmp_path):
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    answers(loaded, tmp_path)
    (cache,) = tmp_path.glob("own_answers-*.jsonl")
    with sole_writer(cache), pytest.raises(UserError, match="is being written by"):
        answers(loaded, tmp_path)


def test_all_trainings_in_a_folder_tell_a_template_one_time(tmp_path):
    """A template with a date made other prompts on the next day."""
    first = kept_time(tmp_path)
    assert kept_time(tmp_path) == first and first.tzinfo is not None
    (tmp_path / "template_time.txt").write_text("yesterday")
    with pytest.raises(UserError, match="holds no time"):
        kept_time(tmp_path)


def test_a_model_without_an_end_token_answers_to_the_last_token(tmp_path):
    base, tokenizer = write_base(tmp_path / "base", eos_token_id=None), tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(base)
    loaded = load(str(base), device="cpu")
    assert loaded.eos == frozenset()
    assert [len(ids) - start for ids, start in answers(loaded, tmp_path)] == [6] * len(PROMPTS)


def test_padding_does_not_change_an_answer(tmp_path):
    """The first batch holds prompts of two lengths."""
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    alone = own_answers(loaded, "", PROMPTS[:1], [0.0], new_tokens=6, batch=1, out=tmp_path, seed=3)
    assert answers(loaded, tmp_path)[:1] == alone


def test_an_answer_ends_at_a_stop_string(tmp_path):
    """A run ends it there, so that what follows is never decoded."""
    loaded = load(str(write_base(tmp_path / "base")), device="cpu")
    whole = answers(loaded, tmp_path)
    longest = max((ids[start:] for ids, start in whole), key=len)
    stopped = replace(loaded, has_stop=lambda tokens: tokens[:3] == longest[:3])
    found = [ids[start:] for ids, start in answers(stopped, tmp_path)]
    expected = [ids[start:] for ids, start in whole]
    assert found == [ids[:3] if ids[:3] == longest[:3] else ids for ids in expected]
    assert len(longest) > 3 and longest[:3] in found


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_own_answers_are_drawn_from_the_models_whole_distribution(temperature):
    asked = {}

    def answer(ids, **options):
        asked.update(options)
        return ids

    lm = SimpleNamespace(generate=answer, device=torch.device("cpu"))
    assert generate(lm, [[1, 2], [3]], Stop(frozenset(), 5), temperature) == [[], []]
    assert asked["do_sample"] == (temperature > 0)
    if temperature:
        assert (asked["temperature"], asked["top_k"]) == (temperature, 0)
