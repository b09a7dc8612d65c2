"""Decoders bound to a model, and their steps."""

from decoders.accept import Exact
from decoders.budget import LADDER, AutoBudget, StepTimes
from decoders.loop import Stop, decode
from decoders.registry import make
from tests.helpers.models import PROMPT

FREE = tuple(1.0 for _ in LADDER)  # seconds by size where nodes cost nothing, as on a GPU
COSTLY = tuple(float(size) for size in LADDER)  # where every node costs as much as a step


def bound(model, spec, seconds=None):
    decoder = make(spec)
    if decoder.auto:
        decoder.budget = AutoBudget(StepTimes((0,), LADDER, (seconds,)))
    decoder.setup(model)
    return decoder


def steps_of(model, spec, tokens=60, rule=None, seconds=FREE):
    return list(
        bound(model, spec, seconds).decode(PROMPT, rule or Exact(), Stop(frozenset(), tokens))
    )


def tokens_of(steps):
    return [token for step in steps for token in step.tokens]


def turn(tokens, rule):
    return PROMPT, rule, Stop(frozenset(), tokens)


def generate(model, spec, rule, tokens=60, eos=()):
    decoder = make(spec)
    decoder.setup(model)
    steps = list(decode(model, decoder, PROMPT, rule, Stop(frozenset(eos), tokens)))
    return [token for step in steps for token in step.tokens], steps
